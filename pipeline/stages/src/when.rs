//! The `when` of a rule: a CEL expression over `payload` and `event`.

use std::{fmt, thread};

use cel::{
    Context, IdedExpr, Program, Value as CelValue,
    common::ast::{EntryExpr, Expr},
};
use serde_json::{Map, Value};

use crate::shortened::shortened;

/// The longest expression.
const MAX_BYTES: usize = 2_000;
/// How deep an expression may go: it is asked by recursion, which takes up to 60 KB a step in a build
/// that is not optimized.
const MAX_DEPTH: usize = 16;
/// How many loops over the payload may stand in each other.
const MAX_LOOPS: u32 = 2;
/// How often they may go round.
const MAX_ROUNDS: usize = 100_000;
/// How much of an error is told.
const MAX_ERROR: usize = 200;
/// Functions that look through a list or a text: loops as well.
const SEARCHES: [&str; 3] = ["@in", "contains", "matches"];
/// The parser goes down by recursion, for `1 + 1 + …` too, and what [`MAX_BYTES`] can hold takes it
/// 64 MB in a build that is not optimized. Only what is used of it is ever there.
const PARSER_STACK: usize = 128 << 20;

/// An expression that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WhenError(String);

/// Whether a text is an expression that a rule may have.
pub fn check_when(text: &str) -> Result<(), WhenError> {
    When::compile(text).map(drop)
}

/// A compiled expression.
pub(crate) struct When {
    program: Program,
    loops: u32,
}

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
        let failed = || WhenError("the parser failed".to_owned());
        thread::scope(|scope| {
            let parser = thread::Builder::new().stack_size(PARSER_STACK);
            let parser = parser.spawn_scoped(scope, || Self::parse(text));
            let parsed = parser.map_err(|_| failed())?.join();
            parsed.map_err(|_| failed())?
        })
    }

    fn parse(text: &str) -> Result<Self, WhenError> {
        let program = Program::compile(text)
            .map_err(|errors| WhenError(errors.to_string().trim().replace('\n', " ")))?;
        let Shape { depth, loops } = Shape::of(program.expression());
        if depth > MAX_DEPTH {
            return Err(WhenError(format!("nested deeper than {MAX_DEPTH}")));
        }
        if loops > MAX_LOOPS {
            let problem = format!("more than {MAX_LOOPS} loops or searches in each other");
            return Err(WhenError(problem));
        }
        Ok(Self { program, loops })
    }
}

/// How deep an expression goes, and how many loops stand in each other.
#[derive(Clone, Copy, Default)]
struct Shape {
    depth: usize,
    loops: u32,
}

impl Shape {
    fn of(expression: &IdedExpr) -> Self {
        let mut shape = Self::default();
        let mut part = |part: &IdedExpr, loops: u32| {
            let part = Self::of(part);
            shape.depth = shape.depth.max(part.depth);
            shape.loops = shape.loops.max(part.loops + loops);
        };
        let mut entry = |entry: &EntryExpr| match entry {
            EntryExpr::StructField(field) => part(&field.value, 0),
            EntryExpr::MapEntry(entry) => {
                part(&entry.key, 0);
                part(&entry.value, 0);
            }
        };
        match &expression.expr {
            Expr::Map(map) => map.entries.iter().for_each(|item| entry(&item.expr)),
            Expr::Struct(message) => message.entries.iter().for_each(|item| entry(&item.expr)),
            Expr::List(list) => list.elements.iter().for_each(|item| part(item, 0)),
            Expr::Select(select) => part(&select.operand, 0),
            Expr::Call(call) => {
                let operands = call.target.as_deref().into_iter().chain(&call.args);
                operands.for_each(|operand| part(operand, 0));
                if SEARCHES.contains(&call.func_name.as_str()) {
                    shape.loops = shape.loops.max(1);
                }
            }
            Expr::Comprehension(each) => {
                // These are asked once, the other two for each item.
                part(&each.iter_range, 0);
                part(&each.accu_init, 0);
                part(&each.result, 0);
                part(&each.loop_cond, 1);
                part(&each.loop_step, 1);
            }
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
        shape.depth += 1;
        shape
    }
}

/// What the expressions of one event's rules are asked about; made once, when the first of them is.
pub(crate) struct Asked<'a> {
    event: &'a str,
    payload: &'a Map<String, Value>,
    context: Option<Context<'static, 'static>>,
    longest: Option<usize>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(event: &'a str, payload: &'a Map<String, Value>) -> Self {
        Self {
            event,
            payload,
            context: None,
            longest: None,
        }
    }

    /// What the expression says; an error when it says neither true nor false.
    pub(crate) fn holds(&mut self, when: &When) -> Result<bool, String> {
        if when.loops > 0 {
            let longest = *self
                .longest
                .get_or_insert_with(|| longest_in(self.payload.len(), self.payload.values()));
            if longest.saturating_pow(when.loops) > MAX_ROUNDS {
                return Err(format!(
                    "when: loops over {longest} items could go round more than {MAX_ROUNDS} times"
                ));
            }
        }
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
        match when.program.execute(context) {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!(
                "when: neither true nor false but {:?}",
                other.type_of()
            )),
            // It may quote what it was asked about.
            Err(error) => Err(format!("when: {}", shortened(error, MAX_ERROR))),
        }
    }
}

/// The length of the longest list, object or text among these and in them; a text counts by
/// kilobytes, as it is searched faster.
fn longest_in<'a>(length: usize, values: impl Iterator<Item = &'a Value>) -> usize {
    let inside = values.map(|value| match value {
        Value::Array(items) => longest_in(items.len(), items.iter()),
        Value::Object(fields) => longest_in(fields.len(), fields.values()),
        Value::String(text) => text.len() / 1_024,
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    });
    inside.fold(length, usize::max)
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
    fn what_is_no_expression_is_refused() {
        for wrong in ["payload.", "1 +", "(", ")", "\"", "a b", "", "// x"] {
            assert!(check_when(wrong).is_err(), "{wrong}");
        }
    }

    /// On a stack as small as those that rules are compiled and asked on.
    fn on_a_small_stack(ask: impl FnOnce() + Send) {
        thread::scope(|scope| {
            let small = thread::Builder::new().stack_size(1 << 20);
            small.spawn_scoped(scope, ask).unwrap().join().unwrap();
        });
    }

    #[test]
    fn no_text_takes_the_parser_further_down_than_there_is_stack() {
        let deep = |open: &str, times, close: &str| {
            format!("{}1{}", open.repeat(times), close.repeat(times))
        };
        let long = |first: &str, then: &str| first.to_owned() + &then.repeat(1_980 / then.len());
        on_a_small_stack(|| {
            for (name, text) in [
                ("brackets", deep("(", 990, ")")),
                ("brackets behind quotes", deep("(')'+", 330, ")")),
                ("brackets behind comments", deep("(//)\n", 330, ")")),
                ("nothing but brackets", "(".repeat(2_000)),
                ("lists", deep("[", 990, "]")),
                ("maps", deep("{1:", 495, "}")),
                ("messages", deep("A{b:", 390, "}")),
                ("calls", deep("size(", 330, ")")),
                ("choices", long("", "true ? 1 : ") + "1"),
                ("sums", long("1", "+1")),
                ("comparisons", long("1", "==1")),
                ("fields", long("payload", ".a")),
                ("items", long("payload", "[0]")),
                ("searches", long("1", " in [1]")),
                ("methods", long("payload", ".size()")),
                ("minus signs", "-".repeat(2_000)),
            ] {
                assert!(check_when(&text).is_err(), "{name}");
            }
            let longer = format!("{} > 1", "x".repeat(2_000));
            assert!(check_when(&longer).is_err());
        });
    }

    #[test]
    fn what_goes_as_deep_as_it_may_can_be_asked() {
        on_a_small_stack(|| {
            for (name, expression, expected) in [
                ("sums", format!("1{} > 0", "+1".repeat(14)), true),
                ("signs", format!("{}true", "!".repeat(1_990)), true),
                (
                    "brackets",
                    format!("{}true{}", "(".repeat(90), ")".repeat(90)),
                    true,
                ),
                (
                    "lists",
                    format!("{}1{} != 0", "[".repeat(14), "]".repeat(14)),
                    true,
                ),
                (
                    "choices",
                    format!("{}true", "false ? false : ".repeat(15)),
                    true,
                ),
                (
                    "clauses",
                    format!("true{}", " && payload.count == 3".repeat(80)),
                    true,
                ),
                (
                    "loops",
                    "payload.tags.all(a, payload.tags.exists(b, (((a == b)))))".to_owned(),
                    true,
                ),
            ] {
                assert_eq!(ask(&expression), Ok(expected), "{name}");
            }
        });
    }

    #[test]
    fn loops_go_round_a_bounded_number_of_times() {
        for (expression, loops) in [
            ("payload.total > 1.0", 0),
            ("payload.action in payload.tags", 1),
            ("payload.action.matches('a')", 1),
            ("payload.tags.all(x, x == 'a')", 1),
            (
                "payload.tags.filter(x, x != 'a').map(x, x + 'b').exists(x, x == 'bb')",
                1,
            ),
            ("payload.tags.all(x, x in payload.tags)", 2),
            ("payload.tags.all(x, payload.tags.exists_one(y, x == y))", 2),
        ] {
            assert_eq!(
                When::compile(expression).unwrap().loops,
                loops,
                "{expression}"
            );
        }
        for expression in [
            "payload.a.all(x, payload.a.all(y, payload.a.all(z, x == y)))",
            "payload.a.all(x, payload.a.all(y, y in payload.a))",
            "payload.a.all // (\n (x, payload.a.existsOne(y, payload.a.map (z, z) == x))",
        ] {
            let error = check_when(expression).unwrap_err().to_string();
            assert!(error.contains("loops"), "{expression}: {error}");
        }
        let numbers: Vec<u32> = (0..400).collect();
        let payload = json!({"deep": {"few": [1], "many": numbers}});
        let asked = |expression: &str| {
            Asked::new("e", payload.as_object().unwrap()).holds(&When::compile(expression).unwrap())
        };
        assert_eq!(asked("payload.deep.many.all(x, x >= 0)"), Ok(true));
        assert_eq!(
            asked("payload.deep.many.all(x, x in payload.deep.many)"),
            Err("when: loops over 400 items could go round more than 100000 times".to_owned())
        );
    }
}
