//! What a command shows: tables and sentences for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table, presets};
use dayfly_agent::render::visible;
use serde_json::Value as Json;

use super::exit::{Exit, Refused};

/// Whether whoever read standard output has gone away.
static UNREAD: AtomicBool = AtomicBool::new(false);
/// Whether a result could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// The colour of what went well.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// The colour of what was refused.
pub const BAD: Style = AnsiColor::Red.on_default();
/// The colour of what waits, and of warnings.
pub const WAITING: Style = AnsiColor::Yellow.on_default();
/// The style of what is less important.
pub const FAINT: Style = Style::new().dimmed();
/// The style of headings.
pub const STRONG: Style = Style::new().bold();

/// In which form results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// One JSON document, or one a line where a command shows things as they come.
    Json,
}

/// Where a command writes: results to standard output, progress and errors to standard error.
/// Colours only where a terminal shows them.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// The form of results.
    pub format: Format,
}

impl Console {
    /// Writes a result: `text` for a person, or `json` for a program.
    pub fn result(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Json) {
        match self.format {
            Format::Text => self.line(text().trim_end()),
            Format::Json => self.line(&json().to_string()),
        }
    }

    /// Writes rows under a head as a table, or as a JSON array of objects with the same content.
    pub fn table(&self, head: &[&str], rows: Vec<Vec<String>>, json: impl FnOnce() -> Json) {
        self.result(|| table(head, rows), json);
    }

    /// Writes one line to standard output. A reader that has gone away is not an error.
    pub fn line(&self, line: &str) {
        match writeln!(anstream::stdout().lock(), "{line}") {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                UNREAD.store(true, Ordering::Relaxed);
            }
            Err(_) => LOST.store(true, Ordering::Relaxed),
        }
    }

    /// Whether nobody reads standard output any more: what goes on and on may end then.
    #[must_use]
    pub fn is_unread(&self) -> bool {
        UNREAD.load(Ordering::Relaxed)
    }

    /// Refuses where a result could not be written, as on a full disk: what is not told whole must
    /// not end like what is.
    pub fn complete(&self) -> Result<(), Refused> {
        if !LOST.load(Ordering::Relaxed) {
            return Ok(());
        }
        let error = anyhow::anyhow!("it is done, but not all of the result could be written");
        let next = "make room where standard output goes, and look again";
        Err(Refused::new(Exit::Failed, error).next(next))
    }

    /// Tells a person more than the result, on standard error; nothing in JSON.
    pub fn aside(&self, text: &str) {
        match self.format {
            Format::Text => finish(writeln!(anstream::stderr().lock(), "{text}")),
            Format::Json => {}
        }
    }

    /// Tells a person what goes on, on standard error; nothing in JSON.
    pub fn progress(&self, line: &str) {
        match self.format {
            Format::Text => finish(writeln!(anstream::stderr().lock(), "{FAINT}{line}{FAINT:#}")),
            Format::Json => {}
        }
    }

    /// Warns a person, on standard error.
    pub fn warn(&self, line: &str) {
        finish(writeln!(anstream::stderr().lock(), "{WAITING}warning:{WAITING:#} {line}"));
    }

    /// Says why a command did not do what was asked, and the next step.
    pub fn refused(&self, refused: &Refused) {
        let (Refused { exit, error, next: _ }, next) = (refused, refused.step());
        let mut err = anstream::stderr().lock();
        let written = match self.format {
            Format::Text => {
                // It may hold what a broker said, and that what somebody wrote.
                let error = visible(&format!("{error:#}"), false);
                writeln!(err, "{BAD}error:{BAD:#} {error}").and_then(|()| match next {
                    Some(step) => writeln!(err, "{STRONG}next:{STRONG:#}  {step}"),
                    None => Ok(()),
                })
            }
            Format::Json => {
                let json = serde_json::json!({
                    "error": format!("{error:#}"), "exit": exit.code(), "next": next,
                });
                writeln!(err, "{json}")
            }
        };
        finish(written);
    }

    /// Asks a yes-or-no question on the terminal; anything but a clear yes is no. `None` where
    /// there is nobody to ask.
    #[must_use]
    pub fn confirm(&self, question: &str) -> Option<bool> {
        if !io::stdin().is_terminal() {
            return None;
        }
        finish(write!(anstream::stderr().lock(), "{STRONG}{question}{STRONG:#} [y/N] "));
        finish(io::stderr().flush());
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).ok()?;
        Some(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}

/// A page that is drawn in place of the one before on a terminal; elsewhere they follow each other.
/// The cursor is hidden for as long as this lives.
pub struct Screen {
    console: Console,
    terminal: bool,
}

impl Screen {
    /// Clears the terminal, where there is one and text is shown.
    #[must_use]
    pub fn open(console: Console) -> Self {
        let terminal = console.format == Format::Text && io::stdout().is_terminal();
        if terminal {
            control("\x1b[?25l\x1b[H\x1b[2J");
        }
        Self { console, terminal }
    }

    /// Whether pages are drawn in place: then they may be drawn again because time has passed.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Shows a page, or as JSON what it says.
    pub fn draw(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> Json) {
        if !self.terminal {
            return self.console.result(text, json);
        }
        // Line by line over what was there: nothing flickers.
        control("\x1b[H");
        for line in text().trim_end().lines() {
            finish(write!(anstream::stdout().lock(), "{line}"));
            control("\x1b[K\n");
        }
        control("\x1b[K\n");
        self.note("Ctrl-C ends this");
    }

    /// A line below the page, for people.
    pub fn note(&self, line: &str) {
        if self.terminal {
            control("\x1b[J\x1b7");
            finish(write!(anstream::stdout().lock(), "{FAINT}{line}{FAINT:#}"));
            control("\x1b8");
        } else {
            self.console.progress(line);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.terminal {
            control("\x1b[J\x1b[?25h");
        }
    }
}

/// What moves the cursor, and is no text: never stripped.
fn control(sequence: &str) {
    finish(io::stdout().write_all(sequence.as_bytes()));
    finish(io::stdout().flush());
}

/// Rows under a head, in columns. What moves the cursor, or shows nothing, is shown as its code.
#[must_use]
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().map(|title| title.to_uppercase()));
    let shown = |row: Vec<String>| row.iter().map(|cell| visible(cell, false)).collect::<Vec<_>>();
    table.add_rows(rows.into_iter().map(shown));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// What is told to a person beside the result: nobody else waits for it.
fn finish(_written: io::Result<()>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a43_what_a_cell_holds_stays_in_its_cell() {
        let hostile = "a\nb\r\u{1b}[2J\u{202e}\u{2028}\0\u{85}\u{9b}x".to_owned();
        let shown = table(&["one", "two"], vec![vec![hostile, "next".to_owned()]]);
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(shown.contains("[2J") && shown.contains("x  next"), "it is shown: {shown}");
        let bad = |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{2028}".contains(*c);
        assert_eq!(shown.chars().find(bad), None, "{shown:?}");
    }
}
