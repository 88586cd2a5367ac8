//! Which methods a path has, for those who ask with another one (RFC 9110, section 15.5.6).

use serde_json::Value;

/// The methods of each path of the document.
#[derive(Default)]
pub(crate) struct Methods(Vec<(Vec<String>, String)>);

impl Methods {
    /// What the document says; `prefix` stands before each of its paths.
    pub(crate) fn of(document: &str, prefix: &str) -> Self {
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let paths = document["paths"].as_object().into_iter().flatten();
        let methods = paths.map(|(path, operations)| {
            let names = operations.as_object().into_iter().flatten();
            let names: Vec<String> = names.map(|(name, _)| name.to_ascii_uppercase()).collect();
            (segments(&format!("{prefix}{path}")), names.join(", "))
        });
        Self(methods.collect())
    }

    /// The methods of a path, as the header `Allow` has them. All others are for reading only.
    pub(crate) fn allowed(&self, path: &str) -> &str {
        let asked = segments(path);
        let is_it = |pattern: &[String]| {
            let mut both = pattern.iter().zip(&asked);
            pattern.len() == asked.len()
                && both.all(|(pattern, part)| pattern.starts_with('{') || pattern == part)
        };
        // One that is written out goes before one with a parameter.
        let found = self.0.iter().filter(|(pattern, _)| is_it(pattern));
        let parameters =
            |pattern: &[String]| pattern.iter().filter(|part| part.starts_with('{')).count();
        let found = found.min_by_key(|(pattern, _)| parameters(pattern));
        found.map_or("GET", |(_, methods)| methods)
    }
}

fn segments(path: &str) -> Vec<String> {
    path.trim_matches('/')
        .split('/')
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_methods_that_the_document_says() {
        let document = r#"{"paths": {
            "/v1/things/{id}": {"get": {}, "delete": {}},
            "/v1/things/test": {"post": {}}
        }}"#;
        let methods = Methods::of(document, "/api");
        for (path, expected) in [
            ("/api/v1/things/7", "DELETE, GET"),
            ("/api/v1/things/test", "POST"),
            ("/healthz", "GET"),
        ] {
            assert_eq!(methods.allowed(path), expected, "{path}");
        }
    }
}
