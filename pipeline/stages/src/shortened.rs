//! What is said about a record, at a length that fits wherever it is written.

use std::fmt::{self, Display, Write};

/// The longest keys and ids that are carried along: 128 characters, which the API takes.
const MAX_KEY_BYTES: usize = 512;

/// The first `limit` characters of a text that may be as long as a payload, which is not written out
/// for that.
pub(crate) fn shortened(text: impl Display, limit: usize) -> String {
    let mut beginning = Beginning {
        text: String::new(),
        left: limit,
    };
    if write!(beginning, "{text}").is_err() {
        beginning.text.push('…');
    }
    beginning.text
}

struct Beginning {
    text: String,
    left: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        match more.char_indices().nth(self.left) {
            Some((end, _)) => {
                self.text.push_str(&more[..end]);
                self.left = 0;
                Err(fmt::Error)
            }
            None => {
                self.text.push_str(more);
                self.left -= more.chars().count();
                Ok(())
            }
        }
    }
}

/// Whether what is carried along, in headers too, is short enough for that; else what to say.
pub(crate) fn check_keys(keys: &[(&str, &Option<String>)]) -> Result<(), String> {
    let too_long = |(_, key): &&(&str, &Option<String>)| {
        key.as_ref().is_some_and(|key| key.len() > MAX_KEY_BYTES)
    };
    match keys.iter().find(too_long) {
        Some((name, _)) => Err(format!("{name} is longer than {MAX_KEY_BYTES} bytes")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_says_so() {
        for (text, limit, expected) in [
            ("", 0, ""),
            ("a", 0, "…"),
            ("äöü", 3, "äöü"),
            ("äöüß", 3, "äöü…"),
        ] {
            assert_eq!(shortened(text, limit), expected, "{text}");
        }
        assert_eq!(shortened(format_args!("{}{}", "ab", "cd"), 3), "abc…");
        assert_eq!(shortened(format_args!("{}{}", "ab", "c"), 3), "abc");
    }
}
