//! Our side of a bench: `benches/side.py` asks for one measurement after another.

use std::io::Write;

use motherlode::{Error, Result};
use serde_json::Value;

/// Says that everything is loaded, then answers every line of standard input with a measurement.
pub(crate) fn serve(ready: &Value, mut repeat: impl FnMut() -> Result<Value>) -> Result<()> {
    let mut output = std::io::stdout();
    let mut say = |value: &Value| {
        let sent = writeln!(output, "{value}").and_then(|()| output.flush());
        sent.map_err(|error| Error::data(format!("standard output: {error}")))
    };
    say(ready)?;
    for line in std::io::stdin().lines() {
        line.map_err(|error| Error::data(format!("standard input: {error}")))?;
        say(&repeat()?)?;
    }
    Ok(())
}
