//! The one way in which this crate says that a value is not what it should be.

use std::borrow::Cow;

/// A value that was refused: which field it stood in, and the rule that it broke.
///
/// The value itself is never carried: it may be a secret, or text that somebody else wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field, named as the person who wrote it knows it (`audience`, `rights[2].resource`).
    pub field: Cow<'static, str>,
    /// The rule, in words, without the value.
    pub rule: Cow<'static, str>,
}

impl Invalid {
    /// A refusal of `field` by `rule`.
    pub fn new(field: impl Into<Cow<'static, str>>, rule: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), rule: rule.into() }
    }

    /// The same refusal one level further out: `resource` within `rights[2]`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let field = format!("{outer}.{}", self.field).into();
        Self { field, ..self }
    }

    /// The same rule, under the name that the field has at the edge.
    #[must_use]
    pub fn of(self, field: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), ..self }
    }
}
