//! Limits stand when the program begins.

use sheaf_domain::ByteSize;
use sheaf_sandbox::{Exit, Limits};

use crate::place::{Place, start};

#[tokio::test]
async fn limits_hold() {
    let place = Place::new();
    let mut program = place.python(
        "import os, resource as r
print([r.getrlimit(what)[0] for what in (r.RLIMIT_AS, r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)])
print(os.nice(0) >= 7, r.getrlimit(r.RLIMIT_NPROC)[0] >= 40)
try: open('big', 'wb').write(bytes(70000))
except OSError as error: print(error.errno)",
    );
    program.limits = Limits {
        address_space: Some(ByteSize::from_mib(2048)),
        file: Some(ByteSize::from_bytes(65536)),
        open_files: Some(64),
        processes: Some(40),
        nice: 7,
        wall: None,
    };
    let exit = start(&program).await.gone().await.unwrap();
    assert_eq!(exit, Exit::Code(0), "{}", place.read("log"));
    let file_too_large = 27;
    assert_eq!(place.read("log"), format!("[2147483648, 65536, 64, 0]\nTrue True\n{file_too_large}\n"));
}
