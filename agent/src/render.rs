//! Shows a person what they are about to sign: all of it, from the very bytes, and nothing that
//! could be mistaken for something else.
//!
//! The text is made from the canonical bytes and from nothing that stood beside them; the digest is
//! computed here. What is not understood to the last member is refused, never shown in part.
//! Characters that do not show, or that move others, stand as their code points; in what is signed,
//! so do letters that are written from right to left.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;

use dayfly_verifier::dossier::{MAX_FREE_TEXT_BYTES, Salt, Statement, parse_canonical};
use dayfly_verifier::id::{GroupId, PersonId, RequestDigest};
use dayfly_verifier::invalid::Invalid;
use dayfly_verifier::request::{Answer, ConfirmBy, Narrowing, Request, Requirement};
use dayfly_verifier::scope::{Constraint, Limit, Scope, Value};
use dayfly_verifier::time::Timestamp;

/// The widest line, in columns.
const WIDTH: usize = 100;
/// The column in which values begin.
const INDENT: usize = 18;

/// Why something is not shown, and hence must not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CannotShow {
    /// The bytes are not a request of which this program knows every member.
    #[error("the request cannot be shown in full: {0}")]
    Request(Invalid),
    /// The decision is not one on this request.
    #[error("the decision does not fit the request: {0}")]
    Decision(Invalid),
    /// A free text is too long.
    #[error("the text is longer than 2048 bytes")]
    TooLong,
}

/// A request as a person is shown it. Only [`request`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    request: Request,
    digest: RequestDigest,
    text: String,
}

/// A decision as its person is shown it, and the bytes to sign. Only [`Shown::decide`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    statement: Statement,
    bytes: Vec<u8>,
    text: String,
}

/// Shows the request of which `canonical` are the bytes; refuses what cannot be shown in full.
pub fn request(canonical: &[u8]) -> Result<Shown, CannotShow> {
    let request = parse_canonical(canonical).map_err(CannotShow::Request)?;
    // `parse_canonical` has held the bytes against the request's own.
    let digest = request.digest();
    let text = request_text(&request, &digest);
    Ok(Shown { request, digest, text })
}

/// Shows a text that a workload wrote: every line behind a bar, so that none of it can pass for
/// ours.
pub fn quoted(text: &str) -> Result<String, CannotShow> {
    if text.len() > MAX_FREE_TEXT_BYTES {
        return Err(CannotShow::TooLong);
    }
    let mut shown = String::new();
    for line in text.split('\n') {
        for piece in fold(&visible(line, false), WIDTH.saturating_sub(4)) {
            shown.push_str(format!("  | {piece}").trim_end());
            shown.push('\n');
        }
    }
    Ok(shown)
}

impl Shown {
    /// The request.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.request
    }

    /// The digest of the bytes that were shown.
    #[must_use]
    pub const fn digest(&self) -> &RequestDigest {
        &self.digest
    }

    /// All of it, as text of several lines.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Prepares a decision of `person` on this request. The reason goes with the salt of its
    /// digest. Refuses a narrowing that would not take away.
    pub fn decide(
        &self,
        person: PersonId,
        answer: Answer,
        reason: Option<(&str, &Salt)>,
        at: Timestamp,
    ) -> Result<Prepared, CannotShow> {
        let digest = reason.map(|(text, salt)| salt.digest(text)).transpose();
        let statement = Statement {
            grant: self.request.grant_id(),
            digest: self.digest,
            person,
            answer,
            reason: digest.map_err(|_| CannotShow::TooLong)?,
            at,
        };
        let bytes = statement.to_bytes();
        let statement = Statement::parse(&bytes).map_err(CannotShow::Decision)?;
        let mut text = statement_text(&statement, &self.request)?;
        if let Some((reason, _)) = reason {
            text.push_str("  your reason, kept beside the statement:\n");
            text.push_str(&quoted(reason)?);
        }
        Ok(Prepared { statement, bytes, text })
    }
}

impl Prepared {
    /// What will be signed.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// The bytes to sign.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All of it, as text of several lines.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Lines of a label and a value, under headings.
#[derive(Default)]
struct Page(String);

impl Page {
    fn heading(&mut self, text: &str) {
        self.0.push_str(text);
        self.0.push('\n');
    }

    fn row(&mut self, label: &str, value: &str) {
        let mut label = format!("  {label}");
        for piece in fold(value, WIDTH.saturating_sub(INDENT)) {
            let line = format!("{label:<INDENT$}{piece}");
            self.0.push_str(line.trim_end());
            self.0.push('\n');
            // What goes on is marked, so that no value can end one line and begin another.
            label = format!("{:>width$}", "\u{21aa} ", width = INDENT);
        }
    }

    fn rows(&mut self, label: &str, values: impl IntoIterator<Item = String>) {
        let mut label = label;
        for value in values {
            self.row(label, &value);
            label = "";
        }
    }
}

fn request_text(request: &Request, digest: &RequestDigest) -> String {
    let Request {
        epoch,
        id,
        filed_at,
        workload,
        principal,
        holder_key,
        confirmation,
        audience,
        scope,
        task,
        purpose,
        lifetime,
        uses,
        requirement,
    } = request;
    let mut page = Page::default();
    page.heading(&format!("Request {}", request.grant_id()));
    page.row("digest", &digest.to_string());
    page.row("filed at", &moment(*filed_at));
    page.row("by workload", workload.as_str());
    page.heading("The workload asks, in names of its own choice, for");
    scope_rows(&mut page, scope);
    page.row("at gateway", audience.as_str());
    page.row("task", task.as_str());
    page.row("purpose", purpose.as_str());
    page.row("on behalf of", principal.as_ref().map_or("nobody", |person| person.as_str()));
    page.row("lease", &format!("{} seconds from the grant on", lifetime.as_secs()));
    page.row("uses", &uses_text(*uses));
    page.row(
        "bound to",
        match confirmation {
            ConfirmBy::Key => "the holder key",
            ConfirmBy::Identity => "the SPIFFE ID of the workload, not the holder key",
        },
    );
    page.row("holder key", &holder_key.to_string());
    page.row("request id", &id.to_string());
    page.row("epoch", &epoch.to_string());
    requirement_rows(&mut page, requirement);
    page.0
}

fn requirement_rows(page: &mut Page, requirement: &Requirement) {
    let Requirement { approvals, max_lifetime, max_uses, online, evidence, presence } = requirement;
    page.heading("Policy demands");
    page.row("approvals", &approvals_text(approvals));
    page.row("lease", &format!("at most {} seconds", max_lifetime.as_secs()));
    page.row("uses", &uses_text(*max_uses));
    let which = |yes: &bool, one, other| if *yes { one } else { other };
    page.row("each use", which(online, "is asked of the broker", "is not asked of the broker"));
    page.row("evidence", which(evidence, "is wanted by gateways", "is not wanted by gateways"));
    page.row("security key", which(presence, "approvers must use one", "approvers need none"));
}

fn statement_text(statement: &Statement, request: &Request) -> Result<String, CannotShow> {
    let Statement { grant, digest, person, answer, reason, at } = statement;
    let mut page = Page::default();
    match answer {
        Answer::Approve(narrowing) => {
            page.heading(&format!("You sign, as {person}: APPROVE"));
            narrowing_rows(&mut page, narrowing, request)?;
        }
        Answer::Deny => page.heading(&format!("You sign, as {person}: DENY")),
    }
    page.row("request", &grant.to_string());
    page.row("digest", &digest.to_string());
    page.row("at", &moment(*at));
    page.row("reason", &reason.map_or("none".to_owned(), |digest| digest.to_string()));
    Ok(page.0)
}

fn narrowing_rows(
    page: &mut Page,
    narrowing: &Narrowing,
    request: &Request,
) -> Result<(), CannotShow> {
    let Narrowing { lifetime, uses, rights, constraints } = narrowing;
    let refused = |field, rule| Err(CannotShow::Decision(Invalid::new(field, rule)));
    if lifetime.is_some_and(|lifetime| lifetime > request.lifetime) {
        return refused("lifetime", "must not be longer than what was asked for");
    }
    if uses.is_some_and(|uses| request.uses.is_some_and(|asked| uses > asked)) {
        return refused("uses", "must not be more than what was asked for");
    }
    let narrowed = request.scope.narrowed(rights.as_ref(), constraints);
    narrowed.map_err(CannotShow::Decision)?;
    let unchanged = || "as asked for".to_owned();
    let lifetime = lifetime.map(|lifetime| format!("{} seconds, no more", lifetime.as_secs()));
    page.row("lease", &lifetime.unwrap_or_else(unchanged));
    page.row("uses", &uses.map_or_else(unchanged, |uses| format!("{uses}, no more")));
    match rights {
        None => page.row("rights", &unchanged()),
        Some(rights) => page.rows("rights, only", rights.iter().map(ToString::to_string)),
    }
    if constraints.is_empty() {
        page.row("arguments", &unchanged());
    } else {
        page.rows("and only if", constraints.iter().map(constraint_text));
    }
    Ok(())
}

fn scope_rows(page: &mut Page, scope: &Scope) {
    page.rows("rights", scope.rights().map(ToString::to_string));
    if scope.constraints().len() == 0 {
        page.row("arguments", "any");
    } else {
        page.rows("only if", scope.constraints().map(constraint_text));
    }
}

fn constraint_text(Constraint { argument, limit }: &Constraint) -> String {
    match limit {
        Limit::Equals(value) => format!("{argument} = {}", value_text(value)),
        Limit::AtMost(most) => format!("{argument} <= {most}"),
        Limit::AtLeast(least) => format!("{argument} >= {least}"),
        Limit::OneOf(values) => {
            let values: Vec<String> = values.iter().map(value_text).collect();
            format!("{argument} in [{}]", values.join(", "))
        }
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Text(text) => format!("\"{}\"", visible(text, true)),
        Value::Int(_) | Value::Bool(_) | Value::Hidden(_) => value.to_string(),
    }
}

fn uses_text(uses: Option<NonZeroU32>) -> String {
    uses.map_or("any number within the lease".to_owned(), |uses| format!("at most {uses}"))
}

fn approvals_text(approvals: &BTreeMap<GroupId, NonZeroU32>) -> String {
    if approvals.is_empty() {
        return "of nobody".to_owned();
    }
    let each = approvals.iter().map(|(group, count)| format!("{group}: {count}"));
    each.collect::<Vec<_>>().join(", ")
}

fn moment(at: Timestamp) -> String {
    format!("{at} ({} ms)", at.as_ms())
}

/// `text` with every character that does not show, or that moves or joins others, as its code
/// point. Within quotes, what would end them is escaped as well, and so are runs of spaces, which
/// could push the rest out of sight, and letters that are written from right to left: a terminal
/// that obeys them shows digits and quotes beside them in another order (UAX #9).
#[must_use]
pub fn visible(text: &str, within_quotes: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut after_space = true;
    for char in text.chars() {
        let space = char == ' ';
        // Writing into a `String` does not fail.
        let _written = match char {
            '"' | '\\' if within_quotes => write!(shown, "\\{char}"),
            '"' | '\\' | '\'' => write!(shown, "{char}"),
            ' ' if within_quotes && after_space => write!(shown, "\\u{{20}}"),
            turns if within_quotes && is_right_to_left(turns) => {
                write!(shown, "{}", turns.escape_unicode())
            }
            blank if shows_nothing(blank) => write!(shown, "{}", blank.escape_unicode()),
            // Escapes controls, formats (bidi), separators, marks, private and unassigned ones.
            char => write!(shown, "{}", char.escape_debug()),
        };
        after_space = space;
    }
    shown
}

/// Letters and symbols that are assigned, and print nothing.
const fn shows_nothing(char: char) -> bool {
    matches!(char, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}')
}

/// The blocks of which Unicode gives every character, assigned or to come, the direction from right
/// to left (`DerivedBidiClass.txt`: R and AL), with the digits among them.
const fn is_right_to_left(char: char) -> bool {
    matches!(
        char,
        '\u{590}'..='\u{8ff}'
            | '\u{fb1d}'..='\u{fdff}'
            | '\u{fe70}'..='\u{feff}'
            | '\u{10800}'..='\u{10fff}'
            | '\u{1e800}'..='\u{1efff}'
    )
}

/// `text` in pieces of at most `width` columns; at least one, empty if the text is.
fn fold(text: &str, width: usize) -> Vec<String> {
    let mut pieces = vec![];
    let (mut piece, mut used) = (String::new(), 0usize);
    for char in text.chars() {
        // No character is wider than two columns, and no ASCII one wider than one.
        let columns = if char.is_ascii() { 1 } else { 2 };
        if used.saturating_add(columns) > width {
            pieces.push(std::mem::take(&mut piece));
            used = 0;
        }
        piece.push(char);
        used = used.saturating_add(columns);
    }
    pieces.push(piece);
    pieces
}

#[cfg(test)]
mod tests;
