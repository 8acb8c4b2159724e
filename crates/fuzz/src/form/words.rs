//! The words of each text format, good ones and ones that have tripped parsers.

/// Plans.
pub(crate) const PLAN: &[&str] = &[
    "[run]\n", "[model]\n", "[strategy]\n", "[cohort]\n", "[task]\n", "[task.train]\n", "[task.evaluate]\n",
    "[task.init]\n", "[stop]\n", "[[run]]\n", "name = ", "rounds = ", "seed = ", "keep_updates = ", "init = ",
    "kind = ", "\"krum\"", "\"trimmed-mean\"", "\"fedadam\"", "clip = { norm_ratio = 4.0 }", "byzantine = ",
    "keep = ", "min = ", "fraction = ", "quorum = ", "deadline = ", "\"10m\"", "attempts = ", "every = ",
    "patience = ", "min_delta = ", "nan", "inf", "-inf", "1e308", "0x", "0b1", "0o7", "-1", "true", "{", "}",
    "[", "]", "\"\"\"", "'''", "\\u0000", "\u{0}", "\n", ".", "=", ",", "#", "a.b.c = 1",
    "1979-05-27T07:32:00Z", "é", "\u{1F600}",
];

/// Kits.
pub(crate) const KIT: &[&str] = &[
    "format = 1\n", "site = ", "trust_domain = ", "servers = [", "\"host:1\"", "[::1]:1", "expires_at = ",
    "\"2030-01-31T12:00:00Z\"", "token = ", "sheaf1-", "ca_pin = ", "ca_pem = ", "\"\"\"",
    "-----BEGIN CERTIFICATE-----\n", "-----END CERTIFICATE-----\n", "-----BEGIN PRIVATE KEY-----\n", "=", "\n",
    "\"", "\\u0000", "+23:59", "9999-12-31T23:59:60Z",
];

/// A server's and a site's configuration.
pub(crate) const CONFIG: &[&str] = &[
    "data_dir = ", "[listen]\n", "address = ", "\"127.0.0.1:0\"", "[store]\n", "[identity]\n", "[limits]\n",
    "inflight = ", "\"64MiB\"", "\"30s\"", "liveness = ", "hold_max = ", "[log]\n", "[telemetry]\n",
    "transport = \"https\"\n", "auth = \"signed\"\n", "tasks_max = ", "[trainers.a]\n", "kind = \"exec\"\n",
    "command = [", "timeout = ", "[policy]\n", "[policy.limits]\n", "\"18446744073709551615TiB\"",
    "\"99999999999d\"", "-1", "nan", "{", "}", "[", "]", "=", "\n", "\"", ".", "'''", "\u{0}", "é",
];

/// Signed requests.
pub(crate) const HEADERS: &[&str] = &[
    "sheaf-site: ", "sheaf-key: ", "sheaf-timestamp: ", "sheaf-nonce: ", "sheaf-body: ", "sheaf-signature: ",
    "\n", "-", "_", "=", "+1", "18446744073709551616", "é", "\u{0}", "00", "FF", "%00",
];

/// The headers of Flower's SuperNodes and SuperExecs.
pub(crate) const FLOWER_HEADERS: &[&str] = &[
    "flwr-public-key: ", "flwr-public-key-bin: ", "flwr-timestamp: ", "flwr-signature: ", "flwr-signature-bin: ",
    "flwr-superexec-ts: ", "flwr-superexec-nonce: ", "flwr-superexec-body-sha256: ", "flwr-superexec-signature: ",
    "+00:00", "+23:59", "-", ".000000", "T", "Z", "0001", "9999", "-02-29", "\n", "=", "==", "LS0tLS1CRUdJTi",
    "9223372036854775807", "é", "\u{0}", "FF",
];

/// The headers of Flower's objects.
pub(crate) const OBJECT: &[&str] = &[
    "ArrayChunk ", "Array ", "ArrayRecord ", "ConfigRecord ", "MetricRecord ", "RecordDict ", "Message ", " ", ",",
    "\u{0}", "0", "00", "-1", "+1", "18446744073709551615", "18446744073709551616",
    "1c0de163ebbba9b7e6c78ba9bb113e8b94ff01a03cf67de3321ae49256aa968a", "é",
];

/// The `Range` header.
pub(crate) const RANGE: &[&str] = &[
    "bytes=", "bytes =", "-", ",", " ", "\t", "+", "0", "18446744073709551615", "lines=",
];

/// Tables of numbers.
pub(crate) const CSV: &[&str] = &[
    ",", "\n", "\r\n", "\"", "label", "nan", "inf", "-0", "1e999", "1e-999", "0x1", "\u{feff}", "65535",
    "65536", "1e400", ";", "\t", "é", ",,,,,,,,",
];

/// JSON.
pub(super) const JSON: &[&str] = &[
    "{", "}", "[", "]", ":", ",", "null", "true", "\"\"", "1e999", "-0", "1.0", "18446744073709551616",
    "\\u0000", "\\ud800", "\"task\":", "\"slots\":[", "\"tensors\":[", "\"name\":\"w\"", "\"dtype\":\"f32\"",
    "\"shape\":[", "\"segments\":[", "{},", "\"config\":{", "{\"list\":{\"values\":[", "\"\",", "\"seq\":",
    "\"hash\":",
];

/// `.npy` headers.
pub(super) const NPY: &[&str] = &[
    "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "'descr': ", "'fortran_order': ", "'shape': ",
    "True", "False", "(", ")", ",", "'|O'", "'>f8'", "'<f2'", "'|b1'", "'|V2'", "4294967296",
    "9223372036854775807", "\n", "\\x", "[(", "0,",
];

/// safetensors headers.
pub(super) const SAFETENSORS: &[&str] = &[
    "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", "\"__metadata__\":{", "\"dtype\":",
    "\"shape\":[", "[0,0]", "\"data_offsets\":[", "\"BF16\"", "\"F16\"", "\"BOOL\"", "\"F8_E4M3\"",
    "18446744073709551615", "9223372036854775808", "{", "}", "]", ",", "\"\":", "\\u0000", " ",
];

/// Zip archives.
pub(super) const ZIP: &[&str] = &[
    "PK\u{3}\u{4}", "PK\u{1}\u{2}", "PK\u{5}\u{6}", "PK\u{6}\u{6}", "PK\u{6}\u{7}", "PK\u{7}\u{8}", ".npy",
    "../", "\u{1}\u{0}\u{10}\u{0}", "\u{93}NUMPY",
];

/// PEM envelopes.
pub(super) const PEM: &[&str] = &[
    "-----BEGIN CERTIFICATE REQUEST-----\n", "-----END CERTIFICATE REQUEST-----\n",
    "-----BEGIN CERTIFICATE-----\n", "-----BEGIN PUBLIC KEY-----\n", "-----", "=", "\r\n", "\n", "AAAA",
];

/// Protobuf: keys of the first fields, and lengths.
pub(super) const PROTOBUF: &[&str] = &[
    "\u{8}", "\u{a}", "\u{12}", "\u{1a}", "\u{22}", "\u{2a}", "\u{32}", "\u{3a}", "\u{42}", "\u{a}\u{0}",
    "\u{12}\u{0}", "\u{b}", "\u{c}", "raw", "f32", "weights", "global", "train", "accepted", "issued",
    "not_finite",
];
