//! Tells what happens while it happens, with how long it took.

use std::time::Duration;

use anstyle::Style;
use dayfly_verifier::time::{Clock as _, SystemClock};
use serde_json::{Value as Json, json};

use crate::cli::console::{BAD, Console, FAINT, Format, GOOD, STRONG};

/// The column at which times end.
const WIDTH: usize = 100;

/// The narrator of the demo: scenes, and in each what somebody did and what came of it.
pub(super) struct Story {
    /// Where it is told; nowhere if `None`.
    console: Option<Console>,
    began: Duration,
    scene: u32,
}

/// A moment from which something is timed.
#[derive(Clone, Copy)]
pub(super) struct Since(Duration);

impl Since {
    pub(super) fn now() -> Self {
        Self(SystemClock.uptime())
    }

    pub(super) fn elapsed(self) -> Duration {
        SystemClock.uptime().saturating_sub(self.0)
    }
}

impl Story {
    pub(super) fn begin(console: Option<Console>) -> Self {
        let story = Self { console, began: SystemClock.uptime(), scene: 0 };
        story.text(&format!("{STRONG}dayfly demo{STRONG:#}"));
        story.text(
            "A broker, an orders service, an agent with a sub-agent, two approvers and an operator,",
        );
        story.text("over real sockets on this machine. Nothing is left behind.");
        story
    }

    /// A new scene.
    pub(super) fn scene(&mut self, title: &str) {
        self.scene = self.scene.saturating_add(1);
        let number = self.scene;
        self.text("");
        self.text(&format!("{STRONG}{number:>2}  {title}{STRONG:#}"));
    }

    /// Somebody does something.
    pub(super) fn does(&self, who: &str, what: &str) {
        self.event("does", who, what, None);
    }

    /// Something came out as it must, and was allowed.
    pub(super) fn allowed(&self, what: &str, since: Since) {
        self.event("allowed", "", what, Some(since.elapsed()));
    }

    /// Something came out as it must, and was refused.
    pub(super) fn refused(&self, what: &str, since: Since) {
        self.event("refused", "", what, Some(since.elapsed()));
    }

    /// An entry of the record.
    pub(super) fn entry(&self, entry: &str) {
        self.json(|scene| json!({ "scene": scene, "kind": "entry", "what": entry }));
        self.text(&format!("      {FAINT}{entry}{FAINT:#}"));
    }

    /// The end, when everything came out as it must.
    pub(super) fn end(&self) {
        let took = SystemClock.uptime().saturating_sub(self.began);
        self.text("");
        self.text(&format!(
            "{GOOD}All of it came out as it must{GOOD:#}, in {}. Next: be all of them yourself with `dayfly dev`.",
            shown(took)
        ));
    }

    fn event(&self, kind: &str, who: &str, what: &str, took: Option<Duration>) {
        let ms = took.map(|took| took.as_secs_f64() * 1e3);
        self.json(
            |scene| json!({ "scene": scene, "kind": kind, "who": who, "what": what, "ms": ms }),
        );
        let (mark, style, word) = match kind {
            "allowed" => ("✓ ", GOOD, ""),
            "refused" => ("✓ ", BAD, "refused: "),
            _ => ("", Style::new(), ""),
        };
        let who = if who.is_empty() { String::new() } else { format!("{who} ") };
        let used = [6, mark.chars().count(), word.len(), who.chars().count(), what.chars().count()];
        let used = used.into_iter().fold(0, usize::saturating_add);
        let took = took.map_or_else(String::new, |took| {
            let took = shown(took);
            let gap = WIDTH.saturating_sub(used).saturating_sub(took.len()).max(2);
            format!("{}{FAINT}{took}{FAINT:#}", " ".repeat(gap))
        });
        let line = format!(
            "      {GOOD}{mark}{GOOD:#}{style}{word}{style:#}{STRONG}{who}{STRONG:#}{what}{took}"
        );
        self.text(&line);
    }

    fn text(&self, line: &str) {
        if let Some(console) = self.console.filter(|console| console.format == Format::Text) {
            console.line(line);
        }
    }

    fn json(&self, event: impl FnOnce(u32) -> Json) {
        if let Some(console) = self.console.filter(|console| console.format == Format::Json) {
            console.line(&event(self.scene).to_string());
        }
    }
}

/// Milliseconds with one digit behind the point; seconds from ten of them on.
pub(super) fn shown(span: Duration) -> String {
    if span < Duration::from_secs(10) {
        format!("{:.1} ms", span.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", span.as_secs_f64())
    }
}
