//! The `motherlode` command.
fn main() {}
