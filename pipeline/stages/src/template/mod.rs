//! Templates: `{{name}}` placeholders on tinytemplate.
//!
//! What an author writes:
//!
//! * `{{ path.to.value }}` and `{{ path | formatter }}` are values; formatters are `json`, `upper`,
//!   `lower` and `unescaped`.
//! * `{{ if path }}`, `{{ if not path }}`, `{{ else }}`, `{{ endif }}`, `{{ for x in path }}`,
//!   `{{ endfor }}`, `{{ with path as x }}`, `{{ endwith }}` are tinytemplate's blocks, and
//!   `@index`, `@first`, `@last` its words inside a loop.
//! * A `-` inside either brace trims the white space on that side.
//! * A single brace is text.
//!
//! A value that is missing or null is an error that names it: never an empty hole in a message.
//! [`parse`] turns this into tinytemplate's own syntax; here it is rendered, within limits.

mod parse;

use std::{cell::Cell, fmt::Write, rc::Rc};

use herald_schemas::catalog::Template;
use serde_json::{Map, Value};
use tinytemplate::{TinyTemplate, error::Error as TinyError};

use self::parse::{Parsed, Tag};

/// The longest template.
pub const MAX_SOURCE_BYTES: usize = 64 * 1_024;
/// The longest text that a template may make.
pub const MAX_OUTPUT_BYTES: usize = 256 * 1_024;
/// How often the loops of a template may go round in all, times its tags: each round may come by
/// every one of them.
const MAX_STEPS: usize = 1_000_000;
/// The name under which the root holds a null for what needs no value.
const NOTHING: &str = "";

/// A template that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TemplateError {
    /// What is wrong.
    pub message: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

/// A template that cannot be rendered with these variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// Neither the request nor the template's defaults provide it.
    #[error("variable {name:?} is missing (line {line}, column {column})")]
    MissingVariable {
        /// The path as it was written.
        name: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// It is there, but not what its place needs.
    #[error("variable {name:?} {problem} (line {line}, column {column})")]
    WrongVariable {
        /// The path as it was written.
        name: String,
        /// Such as `is an object`.
        problem: String,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The text would be longer than [`MAX_OUTPUT_BYTES`].
    #[error("the rendered text is longer than {MAX_OUTPUT_BYTES} bytes")]
    TooLong,
    /// The loops go round too often.
    #[error("the loops take more than {MAX_STEPS} steps")]
    TooManyRounds,
    /// The template itself is wrong; it was checked when it was made.
    #[error("the template does not parse: {0}")]
    Template(#[from] TemplateError),
}

impl RenderError {
    /// A word for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingVariable { .. } => "missing_variable",
            Self::WrongVariable { .. } => "wrong_variable",
            Self::TooLong | Self::TooManyRounds => "content_too_long",
            Self::Template(_) => "invalid_template",
        }
    }
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// As they are.
    None,
    /// With the characters that HTML reads otherwise written as entities.
    Html,
}

/// The variables of a rendering: what the request says, over what the template provides.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'a> {
    /// The request's, or the event's payload.
    pub given: &'a Map<String, Value>,
    /// The template's.
    pub defaults: &'a Map<String, Value>,
}

impl<'a> Variables<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.given.get(name).or_else(|| self.defaults.get(name))
    }
}

/// The parts of a message, rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub content: String,
    /// The subject.
    pub subject: Option<String>,
    /// The HTML part.
    pub html: Option<String>,
}

/// Whether a text is a template.
pub fn check(text: &str) -> Result<(), TemplateError> {
    let parsed = Parsed::new(text)?;
    compile(&parsed, &Rc::default(), Escape::None).map(drop)
}

/// Renders all parts of a template.
pub fn render_message(
    template: &Template,
    given: &Map<String, Value>,
) -> Result<Rendered, RenderError> {
    let variables = Variables {
        given,
        defaults: &template.default_variables,
    };
    let part = |text: &Option<String>, escape| {
        text.as_deref()
            .map(|text| render(text, variables, escape))
            .transpose()
    };
    Ok(Rendered {
        content: render(&template.content, variables, Escape::None)?,
        subject: part(&template.subject, Escape::None)?,
        html: part(&template.html, Escape::Html)?,
    })
}

/// Renders a text.
pub fn render(text: &str, variables: Variables<'_>, escape: Escape) -> Result<String, RenderError> {
    if !text.contains("{{") {
        return Ok(text.to_owned());
    }
    let parsed = Parsed::new(text)?;
    let limits = Rc::new(Limits {
        tags: parsed.tags(),
        ..Limits::default()
    });
    let template = compile(&parsed, &limits, escape)?;
    let context = Value::Object(context(&parsed, variables));
    let rendered = template.render(TEMPLATE, &context);
    match rendered {
        Ok(text) if text.len() > MAX_OUTPUT_BYTES => Err(RenderError::TooLong),
        Ok(text) => Ok(text),
        Err(error) => Err(render_error(&parsed, &limits, &error)),
    }
}

/// What a rendering has used of its limits, and why it stopped.
#[derive(Default)]
struct Limits {
    tags: usize,
    steps: Cell<usize>,
    exceeded: Cell<Option<Exceeded>>,
}

#[derive(Clone, Copy)]
enum Exceeded {
    Length,
    Rounds,
}

impl Limits {
    fn check(&self, output: &str) -> Result<(), TinyError> {
        self.stop_if(output.len() > MAX_OUTPUT_BYTES, Exceeded::Length)
    }

    fn round(&self, output: &str) -> Result<(), TinyError> {
        self.steps.set(self.steps.get() + self.tags);
        self.stop_if(self.steps.get() > MAX_STEPS, Exceeded::Rounds)?;
        self.check(output)
    }

    fn stop_if(&self, stop: bool, why: Exceeded) -> Result<(), TinyError> {
        if !stop {
            return Ok(());
        }
        self.exceeded.set(Some(why));
        Err(TinyError::GenericError {
            msg: "limit".to_owned(),
        })
    }
}

const TEMPLATE: &str = "t";

fn compile<'a>(
    parsed: &'a Parsed<'_>,
    limits: &Rc<Limits>,
    escape: Escape,
) -> Result<TinyTemplate<'a>, TemplateError> {
    let mut template = TinyTemplate::new();
    let mut formatter = |name, escape, change: fn(&Value) -> Result<String, TinyError>| {
        let limits = Rc::clone(limits);
        template.add_formatter(name, move |value, output| {
            let text = change(value)?;
            match escape {
                Escape::None => output.push_str(&text),
                Escape::Html => tinytemplate::escape(&text, output),
            }
            limits.check(output)
        });
    };
    formatter(parse::PLAIN, escape, plain);
    formatter("upper", escape, |value| Ok(plain(value)?.to_uppercase()));
    formatter("lower", escape, |value| Ok(plain(value)?.to_lowercase()));
    formatter("json", escape, |value| Ok(value.to_string()));
    formatter("unescaped", Escape::None, plain);
    let limits = Rc::clone(limits);
    template.add_formatter(parse::ROUND, move |_, output| limits.round(output));
    template.add_formatter(parse::BRACE, |_, output| Ok(output.write_char('{')?));
    template.add_formatter(parse::BACKSLASH, |_, output| Ok(output.write_char('\\')?));
    template
        .add_template(TEMPLATE, &parsed.generated)
        .map_err(|error| parsed.place(&error))?;
    Ok(template)
}

/// A value as text; an error that says what it is instead.
fn plain(value: &Value) -> Result<String, TinyError> {
    let problem = match value {
        Value::String(text) => return Ok(text.clone()),
        Value::Number(number) => return Ok(number.to_string()),
        Value::Bool(yes) => return Ok(yes.to_string()),
        Value::Null => NULL,
        Value::Array(_) => "is a list: use {{ for }} or | json",
        Value::Object(_) => "is an object: name one of its fields or use | json",
    };
    Err(TinyError::GenericError {
        msg: problem.to_owned(),
    })
}

const NULL: &str = "null";

/// As much of the variables as the template's paths reach, so that a large payload is not copied
/// for the sake of one field.
fn context(parsed: &Parsed<'_>, variables: Variables<'_>) -> Map<String, Value> {
    let mut context = Map::new();
    context.insert(NOTHING.to_owned(), Value::Null);
    let mut paths = parsed.root_paths();
    // Shorter ones first: what is copied whole needs none of its parts.
    paths.sort_by_key(|path| path.len());
    let mut whole: Vec<&str> = Vec::new();
    for path in paths {
        let inside = |parent: &&str| {
            path.strip_prefix(*parent)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if !whole.iter().any(inside) && copy(&mut context, path, variables) {
            whole.push(path);
        }
    }
    context
}

/// Copies the value at `path`, or the list or text on the way to it; answers whether there is one.
fn copy(context: &mut Map<String, Value>, path: &str, variables: Variables<'_>) -> bool {
    let mut steps = path.split('.');
    let Some(first) = steps.next() else {
        return false;
    };
    let Some(mut value) = variables.get(first) else {
        return false;
    };
    let mut into = context;
    let mut key = first;
    for step in steps {
        let Value::Object(fields) = value else { break };
        let Some(next) = fields.get(step) else {
            return false;
        };
        let slot = into
            .entry(key.to_owned())
            .or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(slot) = slot else {
            return false;
        };
        into = slot;
        (value, key) = (next, step);
    }
    into.insert(key.to_owned(), value.clone());
    true
}

fn render_error(parsed: &Parsed<'_>, limits: &Limits, error: &TinyError) -> RenderError {
    match limits.exceeded.get() {
        Some(Exceeded::Length) => return RenderError::TooLong,
        Some(Exceeded::Rounds) => return RenderError::TooManyRounds,
        None => {}
    }
    let (line, column, problem) = match error {
        TinyError::RenderError { line, column, msg } => {
            let problem = if msg.contains("non-iterable") {
                Some("is not a list".to_owned())
            } else if msg.contains("truthiness") {
                Some("is neither true nor false".to_owned())
            } else {
                None
            };
            (*line, *column, problem)
        }
        TinyError::CalledFormatterError {
            line, column, err, ..
        } => {
            let text = err.to_string();
            (*line, *column, (text != NULL).then_some(text))
        }
        _ => return RenderError::Template(parsed.place(error)),
    };
    let Some(Tag {
        path, line, column, ..
    }) = parsed.tag_at(line, column)
    else {
        return RenderError::Template(parsed.place(error));
    };
    let (name, line, column) = ((*path).to_owned(), *line, *column);
    match problem {
        None => RenderError::MissingVariable { name, line, column },
        Some(problem) => RenderError::WrongVariable {
            name,
            problem,
            line,
            column,
        },
    }
}

#[cfg(test)]
mod tests;
