//! From what an author writes to what tinytemplate reads.
//!
//! Every tag is read strictly here, so that a mistake is told with the author's line and column,
//! and so that nothing reaches tinytemplate that it would take otherwise (`{{ call }}`, a variable
//! in `if` whose name starts with `not`, a backslash before a brace).

use tinytemplate::error::Error as TinyError;

use super::{MAX_SOURCE_BYTES, TemplateError};

/// The formatter of a value that names none.
pub(super) const PLAIN: &str = "plain";
/// The formatter that counts a round of a loop.
pub(super) const ROUND: &str = "round";
/// The formatters that write what tinytemplate would not take as text.
pub(super) const BRACE: &str = "brace";
pub(super) const BACKSLASH: &str = "backslash";

const FORMATTERS: [&str; 4] = ["json", "lower", "unescaped", "upper"];
const KEYWORDS: [&str; 3] = ["@index", "@first", "@last"];
/// Stands for a name that tinytemplate would misread.
const ALIAS: &str = "\u{1}";
const MAX_NESTING: usize = 16;

/// A template in tinytemplate's syntax.
pub(super) struct Parsed<'a> {
    pub(super) generated: String,
    tags: Vec<Tag<'a>>,
}

/// A tag of the author's, and where its translation stands.
pub(super) struct Tag<'a> {
    /// The path it names; empty when it names none.
    pub(super) path: &'a str,
    /// Whether the path starts at the variables and not at a loop's or `with`'s name.
    from_root: bool,
    /// Where the author wrote it, from 1.
    pub(super) line: usize,
    pub(super) column: usize,
    /// The byte of `generated` where its translation starts.
    generated_at: usize,
}

/// What a `{{ endif }}` and the like has to close.
enum Block<'a> {
    /// Whether `{{ else }}` is still possible, and whether a `with` of ours is to be closed too.
    If {
        may_else: bool,
        aliased: bool,
    },
    For(&'a str),
    With(&'a str),
}

struct Parser<'a> {
    source: &'a str,
    parsed: Parsed<'a>,
    blocks: Vec<(Block<'a>, usize)>,
}

impl<'a> Parsed<'a> {
    pub(super) fn new(source: &'a str) -> Result<Self, TemplateError> {
        let parsed = Parsed {
            generated: String::with_capacity(source.len() * 2),
            tags: Vec::new(),
        };
        let mut parser = Parser {
            source,
            parsed,
            blocks: Vec::new(),
        };
        if source.len() > MAX_SOURCE_BYTES {
            return Err(parser.error(0, format!("longer than {MAX_SOURCE_BYTES} bytes")));
        }
        parser.run()?;
        Ok(parser.parsed)
    }

    /// How many tags there are.
    pub(super) fn tags(&self) -> usize {
        self.tags.len()
    }

    /// The paths that are looked up in the variables themselves.
    pub(super) fn root_paths(&self) -> Vec<&'a str> {
        let from_root = |tag: &&Tag<'a>| tag.from_root && !tag.path.is_empty();
        self.tags
            .iter()
            .filter(from_root)
            .map(|tag| tag.path)
            .collect()
    }

    /// The tag whose translation covers a place that tinytemplate names: its lines count from 1,
    /// its columns are bytes from 0.
    pub(super) fn tag_at(&self, line: usize, column: usize) -> Option<&Tag<'a>> {
        let lines = self
            .generated
            .split_inclusive('\n')
            .take(line.saturating_sub(1));
        let at = lines.map(str::len).sum::<usize>() + column;
        self.tags.iter().rev().find(|tag| tag.generated_at <= at)
    }

    /// An error of tinytemplate's, at the author's place.
    pub(super) fn place(&self, error: &TinyError) -> TemplateError {
        let (line, column) = match error {
            TinyError::ParseError { line, column, .. }
            | TinyError::RenderError { line, column, .. } => (*line, *column),
            _ => (1, 0),
        };
        let (line, column) = self
            .tag_at(line, column)
            .map_or((line, column + 1), |tag| (tag.line, tag.column));
        TemplateError {
            message: error.to_string(),
            line,
            column,
        }
    }
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), TemplateError> {
        let source = self.source;
        let mut at = 0;
        let mut trim_start = false;
        while let Some(found) = source[at..].find("{{") {
            let open = at + found;
            let close = source[open..]
                .find("}}")
                .filter(|close| !source[open..open + close].contains('\n'))
                .ok_or_else(|| self.error(open, "{{ is not closed by }} on its line".to_owned()))?;
            let inside = &source[open + 2..open + close];
            let (inside, trim_before) = match inside.strip_prefix('-') {
                Some(rest) => (rest, true),
                None => (inside, false),
            };
            let (inside, trim_after) = match inside.strip_suffix('-') {
                Some(rest) => (rest, true),
                None => (inside, false),
            };
            self.text(&source[at..open], trim_start, trim_before);
            self.tag(inside.trim(), open)?;
            trim_start = trim_after;
            at = open + close + 2;
        }
        self.text(&source[at..], trim_start, false);
        match self.blocks.last() {
            Some((_, opened)) => Err(self.error(*opened, "this block is not closed".to_owned())),
            None => Ok(()),
        }
    }

    fn text(&mut self, text: &str, trim_start: bool, trim_end: bool) {
        let text = if trim_start { text.trim_start() } else { text };
        let text = if trim_end { text.trim_end() } else { text };
        let mut rest = text;
        while let Some(special) = rest.find(['{', '\\']) {
            let (before, after) = rest.split_at(special);
            self.parsed.generated.push_str(before);
            if after.starts_with('{') {
                self.emit_special(BRACE);
            } else if after[1..].is_empty() || after[1..].starts_with(['{', '\\']) {
                // A backslash right before a brace is tinytemplate's escape.
                self.emit_special(BACKSLASH);
            } else {
                self.parsed.generated.push('\\');
            }
            rest = &after[1..];
        }
        self.parsed.generated.push_str(rest);
    }

    fn emit_special(&mut self, formatter: &str) {
        self.parsed.generated.push_str("{|");
        self.parsed.generated.push_str(formatter);
        self.parsed.generated.push('}');
    }

    fn tag(&mut self, inside: &'a str, at: usize) -> Result<(), TemplateError> {
        let (word, rest) = match inside.split_once(char::is_whitespace) {
            Some((word, rest)) => (word, rest.trim()),
            None => (inside, ""),
        };
        match word {
            "if" => self.open_if(rest, at),
            "else" if rest.is_empty() => self.open_else(at),
            "endif" if rest.is_empty() => self.close_if(at),
            "for" => self.open_for(rest, at),
            "endfor" if rest.is_empty() => self.close_for(at),
            "with" => self.open_with(rest, at),
            "endwith" if rest.is_empty() => self.close_with(at),
            "call" if !rest.is_empty() && !rest.starts_with('|') => {
                Err(self.error(at, "{{ call }} is not available".to_owned()))
            }
            _ => self.value(inside, at),
        }
    }

    fn value(&mut self, inside: &'a str, at: usize) -> Result<(), TemplateError> {
        let (path, formatter) = match inside.split_once('|') {
            Some((path, formatter)) => (path.trim(), Some(formatter.trim())),
            None => (inside, None),
        };
        if KEYWORDS.contains(&path) {
            if formatter.is_some() {
                return Err(self.error(at, format!("{path} takes no formatter")));
            }
            if !self
                .blocks
                .iter()
                .any(|(block, _)| matches!(block, Block::For(_)))
            {
                return Err(self.error(at, format!("{path} stands outside of {{{{ for }}}}")));
            }
            self.emit(path, at, &format!("{{{path}}}"));
            return Ok(());
        }
        if let Some(unknown) = formatter.filter(|formatter| !FORMATTERS.contains(formatter)) {
            let known = FORMATTERS.join(", ");
            return Err(self.error(
                at,
                format!("unknown formatter {unknown:?}; known are {known}"),
            ));
        }
        self.path(path, at)?;
        let formatter = formatter.unwrap_or(PLAIN);
        self.emit(path, at, &format!("{{{path}|{formatter}}}"));
        Ok(())
    }

    fn open_if(&mut self, rest: &'a str, at: usize) -> Result<(), TemplateError> {
        let (negated, path) = match rest.split_once(char::is_whitespace) {
            Some(("not", path)) => ("not ", path.trim()),
            _ => ("", rest),
        };
        if !KEYWORDS.contains(&path) {
            self.path(path, at)?;
        }
        // tinytemplate takes any name that starts with `not` for the word itself: such a one goes
        // by another name, one that no author can write.
        let aliased = path.starts_with("not");
        let opened = if aliased {
            format!("{{{{ with {path} as {ALIAS} }}}}{{{{ if {negated}{ALIAS} }}}}")
        } else {
            format!("{{{{ if {negated}{path} }}}}")
        };
        self.emit(path, at, &opened);
        self.open(
            Block::If {
                may_else: true,
                aliased,
            },
            at,
        )
    }

    fn open_else(&mut self, at: usize) -> Result<(), TemplateError> {
        match self.blocks.last_mut() {
            Some((Block::If { may_else, .. }, _)) if *may_else => *may_else = false,
            _ => return Err(self.error(at, "{{ else }} without {{ if }}".to_owned())),
        }
        self.emit("", at, "{{ else }}");
        Ok(())
    }

    fn close_if(&mut self, at: usize) -> Result<(), TemplateError> {
        match self.blocks.pop() {
            Some((Block::If { aliased, .. }, _)) => {
                self.emit(
                    "",
                    at,
                    if aliased {
                        "{{ endif }}{{ endwith }}"
                    } else {
                        "{{ endif }}"
                    },
                );
                Ok(())
            }
            _ => Err(self.error(at, "{{ endif }} without {{ if }}".to_owned())),
        }
    }

    fn open_for(&mut self, rest: &'a str, at: usize) -> Result<(), TemplateError> {
        let (name, path) = rest
            .split_once(" in ")
            .map(|(name, path)| (name.trim(), path.trim()))
            .ok_or_else(|| self.error(at, "expected {{ for NAME in PATH }}".to_owned()))?;
        self.name(name, at)?;
        self.path(path, at)?;
        self.emit(
            path,
            at,
            &format!("{{{{ for {name} in {path} }}}}{{|{ROUND}}}"),
        );
        self.open(Block::For(name), at)
    }

    fn close_for(&mut self, at: usize) -> Result<(), TemplateError> {
        match self.blocks.pop() {
            Some((Block::For(_), _)) => {
                self.emit("", at, "{{ endfor }}");
                Ok(())
            }
            _ => Err(self.error(at, "{{ endfor }} without {{ for }}".to_owned())),
        }
    }

    fn open_with(&mut self, rest: &'a str, at: usize) -> Result<(), TemplateError> {
        let (path, name) = rest
            .split_once(" as ")
            .map(|(path, name)| (path.trim(), name.trim()))
            .ok_or_else(|| self.error(at, "expected {{ with PATH as NAME }}".to_owned()))?;
        self.path(path, at)?;
        self.name(name, at)?;
        self.emit(path, at, &format!("{{{{ with {path} as {name} }}}}"));
        self.open(Block::With(name), at)
    }

    fn close_with(&mut self, at: usize) -> Result<(), TemplateError> {
        match self.blocks.pop() {
            Some((Block::With(_), _)) => {
                self.emit("", at, "{{ endwith }}");
                Ok(())
            }
            _ => Err(self.error(at, "{{ endwith }} without {{ with }}".to_owned())),
        }
    }

    fn open(&mut self, block: Block<'a>, at: usize) -> Result<(), TemplateError> {
        if self.blocks.len() == MAX_NESTING {
            return Err(self.error(at, format!("more than {MAX_NESTING} blocks in each other")));
        }
        self.blocks.push((block, at));
        Ok(())
    }

    fn path(&self, path: &str, at: usize) -> Result<(), TemplateError> {
        if path.is_empty() {
            return Err(self.error(at, "a variable's name is missing".to_owned()));
        }
        if !path.split('.').all(is_name) {
            return Err(self.error(at, format!("{path:?} is no path of a variable")));
        }
        Ok(())
    }

    fn name(&self, name: &str, at: usize) -> Result<(), TemplateError> {
        if is_name(name) {
            Ok(())
        } else {
            Err(self.error(at, format!("{name:?} is no name")))
        }
    }

    fn emit(&mut self, path: &'a str, at: usize, translation: &str) {
        let first = path.split('.').next().unwrap_or_default();
        let named = |block: &Block<'_>| match block {
            Block::For(name) | Block::With(name) => *name == first,
            Block::If { .. } => false,
        };
        let local = first.starts_with('@') || self.blocks.iter().any(|(block, _)| named(block));
        let (line, column) = self.place(at);
        let generated_at = self.parsed.generated.len();
        self.parsed.tags.push(Tag {
            path,
            from_root: !local,
            line,
            column,
            generated_at,
        });
        self.parsed.generated.push_str(translation);
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let before = &self.source[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        (line, column)
    }

    fn error(&self, at: usize, message: String) -> TemplateError {
        let (line, column) = self.place(at);
        TemplateError {
            message,
            line,
            column,
        }
    }
}

/// Letters, digits, `_`, `-` and `$`, as JSON's keys mostly are.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))
}
