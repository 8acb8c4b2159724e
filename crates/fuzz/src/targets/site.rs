//! What a site reads of its own: the files a trainer's command leaves, and tables of examples.

use bytes::Bytes;
use sheaf_client::data::{Dataset, ReadOptions};
use sheaf_client::trainer::{parse_metrics, parse_model};

use crate::form::{self, Form};
use crate::target::{Ceiling, Probe, Target, Verdict};

/// `parse_metrics` and `parse_model`: what a command leaves behind.
pub(super) const RESULT: Target = Target {
    name: "result",
    about: "the metrics and the model a trainer's command leaves",
    form: Form::ChosenJson,
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 32, constant: 16 * 1024 },
    samples: result_samples,
    body: result,
};

/// `Dataset::from_csv`. A number of two characters becomes one of eight bytes in a list that doubles as it grows.
pub(super) const CSV: Target = Target {
    name: "csv",
    about: "a table of examples in CSV",
    form: Form::Text(form::CSV),
    len_max: 64 * 1024,
    ceiling: Ceiling { per_byte: 24, constant: 16 * 1024 },
    samples: csv_samples,
    body: csv,
};

fn result(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    match super::choice(input, 2) {
        Ok((0, text)) => match probe.watch(|| parse_metrics(text)) {
            Ok((num_examples, metrics)) => {
                assert!(num_examples.is_finite() && num_examples > 0.0, "a weight of {num_examples}");
                assert!(metrics.values().all(|value| value.is_finite()), "a metric that is not finite");
                Verdict::Accepted(format!("{} metrics", metrics.len()))
            }
            Err(error) => Verdict::refused(error),
        },
        Ok((_, file)) => {
            let file = Bytes::copy_from_slice(file);
            match probe.watch(|| parse_model(file)) {
                Ok(model) => {
                    let finite = |values: Vec<f64>| values.iter().all(|value| value.is_finite());
                    let all = model.iter().all(|tensor| tensor.to_f64().is_ok_and(finite));
                    assert!(all, "a tensor that is not finite");
                    Verdict::Accepted(format!("{} tensors", model.len()))
                }
                Err(error) => Verdict::refused(error),
            }
        }
        Err(refused) => refused,
    }
}

fn csv(input: &[u8], probe: &mut Probe<'_>) -> Verdict {
    let text = match super::text(input) {
        Ok(text) => text,
        Err(refused) => return refused,
    };
    let by_name = ReadOptions { label: Some("label".to_owned()), ..ReadOptions::default() };
    let named = probe.watch(|| Dataset::from_csv(text, &by_name));
    let data = match probe.watch(|| Dataset::from_csv(text, &ReadOptions::default())) {
        Ok(data) => data,
        Err(error) => return Verdict::refused(error),
    };
    assert!(data.labels().iter().all(|label| *label < data.num_classes()), "a label beyond the classes");
    let width = data.num_features();
    let whole = (0..data.len())
        .all(|row| data.row(row).len() == width && data.row(row).iter().all(|x| x.is_finite()));
    assert!(whole, "a row is ragged or not finite");
    Verdict::Accepted(format!("{} rows of {width}, by name: {}", data.len(), named.is_ok()))
}

fn result_samples() -> Vec<Vec<u8>> {
    let metrics = br#"{"num_examples":120,"metrics":{"loss":0.25,"accuracy":1.0}}"#;
    let model = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let mut file = (model.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(model);
    file.extend_from_slice(&[0, 0, 128, 63, 0, 0, 0, 192]);
    vec![super::chosen(0, metrics), super::chosen(0, br#"{"num_examples":0.5}"#), super::chosen(1, &file)]
}

fn csv_samples() -> Vec<Vec<u8>> {
    ["0,16,1\n8,0,0\n", "a,\"b\",label\n1.5,-2e3,0\n2,3,1\n", "\u{feff}x,label\r\n1,0\r\n\r\n"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}
