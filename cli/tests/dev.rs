//! `sluice dev`: ready, told apart from what is in its way, and stopped.

mod binary;

use std::{net::TcpListener, time::Duration};

use binary::{Dev, free_offset, run, stderr};

#[test]
fn it_is_ready_and_stops_when_it_is_told() {
    let mut dev = Dev::start();
    assert_eq!(dev.terminate().code(), Some(0));
}

/// Listens at a port that was free just now. A process that another test starts meanwhile may hold on to what looked whether it is, until it
/// runs its own program.
fn take(port: u16) -> TcpListener {
    let mut tries = std::iter::repeat_n((), 100);
    let listener = tries.find_map(|()| {
        std::thread::sleep(Duration::from_millis(20));
        TcpListener::bind(("127.0.0.1", port)).ok()
    });
    listener.unwrap_or_else(|| panic!("port {port} stays taken"))
}

#[test]
fn ports_that_are_taken_are_named_with_their_purpose() {
    let offset = free_offset();
    let (_broker, _rest) = (take(10_911 + offset), take(8082 + offset));
    let data = tempfile::tempdir().unwrap();
    let output = run(&["dev", "--data", data.path().to_str().unwrap(), "--port-offset", &offset.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains(&format!("port {} (broker", 10_911 + offset)), "{told}");
    assert!(told.contains(&format!("port {} (REST", 8082 + offset)), "{told}");
    assert!(!told.contains("name server") && told.contains("--port-offset"), "{told}");
}

#[test]
fn an_offset_beyond_all_ports_is_refused() {
    let output = run(&["dev", "--port-offset", "60000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--port-offset"), "{}", stderr(&output));
}
