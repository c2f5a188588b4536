//! The main job in one command.

mod binary;

use binary::{run, stderr, stdout};

#[test]
fn the_demo_accounts_for_every_message() {
    let output = run(&["demo", "--log", "warn"]);
    let told = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{told}\n{}", stderr(&output));
    assert!(told.contains("1000 sent = ") && told.contains("3 committed + 3 rolled back"), "{told}");
}
