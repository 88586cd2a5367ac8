//! The `when` of a rule: a CEL expression over `payload` and `event`.

use std::fmt;

use cel::{Context, Program, Value as CelValue};
use serde_json::{Map, Value};

/// The longest expression.
const MAX_BYTES: usize = 2_000;
/// How deep brackets, signs and choices may nest: the parser goes down by recursion.
const MAX_DEPTH: usize = 32;
/// How many loops over lists an expression may have: each may multiply the others.
const MAX_LOOPS: usize = 2;
const LOOPS: [&str; 5] = [".all(", ".exists(", ".exists_one(", ".filter(", ".map("];

/// An expression that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WhenError(String);

/// Whether a text is an expression that a rule may have.
pub fn check_when(text: &str) -> Result<(), WhenError> {
    When::compile(text).map(drop)
}

/// A compiled expression.
pub(crate) struct When(Program);

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("When")
    }
}

impl When {
    pub(crate) fn compile(text: &str) -> Result<Self, WhenError> {
        if text.len() > MAX_BYTES {
            return Err(WhenError(format!("longer than {MAX_BYTES} bytes")));
        }
        let (mut depth, mut signs, mut choices) = (0_usize, 0_usize, 0_usize);
        for c in text.chars().filter(|c| !c.is_whitespace()) {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                '?' => choices += 1,
                _ => {}
            }
            signs = if matches!(c, '!' | '-') { signs + 1 } else { 0 };
            if depth.max(signs).max(choices) > MAX_DEPTH {
                return Err(WhenError(format!("nested deeper than {MAX_DEPTH}")));
            }
        }
        let compact: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        if LOOPS
            .iter()
            .map(|word| compact.matches(word).count())
            .sum::<usize>()
            > MAX_LOOPS
        {
            return Err(WhenError(format!("more than {MAX_LOOPS} loops over lists")));
        }
        let program = Program::compile(text)
            .map_err(|errors| WhenError(errors.to_string().trim().replace('\n', " ")))?;
        Ok(Self(program))
    }
}

/// What the expressions of one event's rules are asked about; made once, when the first of them is.
pub(crate) struct Asked<'a> {
    event: &'a str,
    payload: &'a Map<String, Value>,
    context: Option<Context<'static, 'static>>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(event: &'a str, payload: &'a Map<String, Value>) -> Self {
        Self {
            event,
            payload,
            context: None,
        }
    }

    /// What the expression says; an error when it says neither true nor false.
    pub(crate) fn holds(&mut self, when: &When) -> Result<bool, String> {
        let context = match &mut self.context {
            Some(context) => context,
            none => {
                let mut context = Context::default();
                context
                    .add_variable("payload", self.payload)
                    .map_err(|error| format!("when: the payload cannot be asked: {error}"))?;
                context.add_variable_from_value("event", self.event.to_owned());
                none.insert(context)
            }
        };
        match when.0.execute(context) {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!(
                "when: neither true nor false but {:?}",
                other.type_of()
            )),
            Err(error) => Err(format!("when: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ask(expression: &str) -> Result<bool, String> {
        let payload = json!({"total": 99.5, "count": 3, "action": "opened",
            "tags": ["a", "b"], "user": {"name": "Ada"}, "none": null});
        let payload = payload.as_object().unwrap();
        let when = When::compile(expression).map_err(|error| error.to_string())?;
        Asked::new("issues", payload).holds(&when)
    }

    #[test]
    fn expressions_see_the_payload_and_the_events_name() {
        for (expression, expected) in [
            ("payload.total > 50.0", true),
            ("payload.count == 3 && event == 'issues'", true),
            ("payload.action in ['closed', 'reopened']", false),
            ("payload.user.name.startsWith('A')", true),
            ("'b' in payload.tags", true),
            ("payload.tags.exists(t, t == 'c')", false),
            ("has(payload.missing)", false),
            ("payload.none == null", true),
            ("payload.user.name.matches('^A.a$')", true),
            ("size(payload.tags) == 2", true),
        ] {
            assert_eq!(ask(expression), Ok(expected), "{expression}");
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        assert!(
            ask("payload.missing == 1")
                .unwrap_err()
                .starts_with("when: ")
        );
        assert!(
            ask("payload.total")
                .unwrap_err()
                .contains("neither true nor false")
        );
    }

    #[test]
    fn what_is_no_expression_or_too_much_is_refused() {
        for wrong in ["payload.", "1 +", "(", ")", "\"", "a b"] {
            assert!(check_when(wrong).is_err(), "{wrong}");
        }
        assert!(check_when(&"(".repeat(1_000)).is_err());
        assert!(check_when(&"!".repeat(1_000)).is_err());
        assert!(check_when(&format!("{} > 1", "x".repeat(2_000))).is_err());
        let loops = "payload.a.all(x, payload.a.all(y, payload.a.all(z, x == y)))";
        assert!(check_when(loops).unwrap_err().to_string().contains("loops"));
    }
}
