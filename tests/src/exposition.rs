//! Prometheus' text format, read as strictly as it is defined: what a lenient reader would forgive
//! fails the test.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A figure's labels, by name.
type Labels = BTreeMap<String, String>;

/// Everything that one answer shows.
#[derive(Debug, Default)]
pub struct Exposition {
    samples: Vec<(String, Labels, f64)>,
    kinds: HashMap<String, String>,
}

impl Exposition {
    /// Reads an answer.
    ///
    /// # Panics
    ///
    /// When it is not Prometheus' text format.
    pub fn read(text: &str) -> Self {
        assert!(text.is_empty() || text.ends_with('\n'), "no end of line");
        let mut exposition = Self::default();
        let (mut family, mut helped) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect(line);
                assert!(is_name(name) && !words.is_empty(), "{line}");
                assert!(helped.insert(name.to_owned()), "told twice: {line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert_eq!(name, family, "a type without its help: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let before = exposition.kinds.insert(name.to_owned(), kind.to_owned());
                assert!(before.is_none(), "told twice: {line}");
            } else {
                let (name, labels, value) = sample(line);
                exposition.check_place(&family, &name, line);
                exposition.samples.push((name, labels, value));
            }
        }
        exposition.check();
        exposition
    }

    /// And what another process shows.
    pub fn add(&mut self, other: Self) {
        self.samples.extend(other.samples);
        self.kinds.extend(other.kinds);
    }

    /// The names that figures go by.
    pub fn families(&self) -> impl Iterator<Item = &str> {
        self.kinds.keys().map(String::as_str)
    }

    /// The sum of all figures of that name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).sum()
    }

    /// Whether there is a figure of that name with these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.find(name, labels).next().is_some()
    }

    fn find<'a>(&'a self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> + 'a {
        let (name, labels) = (
            name.to_owned(),
            labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>(),
        );
        let fits = move |have: &Labels| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| have.get(name) == Some(value))
        };
        self.samples
            .iter()
            .filter(move |(have, labels, _)| *have == name && fits(labels))
            .map(|(.., value)| *value)
    }

    /// A figure stands below its family's type, under a name that the type allows.
    fn check_place(&self, family: &str, name: &str, line: &str) {
        let kind = self.kinds.get(family);
        let kind = kind.unwrap_or_else(|| panic!("no type before {line}"));
        let rest = name.strip_prefix(family);
        let is_right = match kind.as_str() {
            "histogram" => matches!(rest, Some("_bucket" | "_sum" | "_count")),
            _ => rest == Some(""),
        };
        assert!(is_right, "{line} below {family}");
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (name, labels, value) in &self.samples {
            assert!(seen.insert((name, labels)), "{name}{labels:?} twice");
            if self.kinds.get(name).is_some_and(|kind| kind == "counter") {
                assert!(*value >= 0.0 && value.is_finite(), "{name} {value}");
                assert!(name.ends_with("_total"), "{name} is a counter");
            }
        }
        for family in self
            .kinds
            .keys()
            .filter(|name| self.kinds[*name] == "histogram")
        {
            self.check_histogram(family);
        }
    }

    /// Buckets rise, and the last one holds all.
    fn check_histogram(&self, family: &str) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (name, labels, value) in &self.samples {
            if *name == format!("{family}_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").expect("a bucket has a bound");
                buckets
                    .entry(labels)
                    .or_default()
                    .push((number(&bound), *value));
            }
        }
        for (labels, buckets) in buckets {
            let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
            assert!(buckets.windows(2).all(rises), "{family}{labels:?}");
            let (bound, all) = buckets[buckets.len() - 1];
            let of = |suffix: &str| {
                let name = format!("{family}{suffix}");
                let found = self.samples.iter().find(|s| s.0 == name && s.1 == labels);
                found.unwrap_or_else(|| panic!("no {name}{labels:?}")).2
            };
            assert!(bound == f64::INFINITY && all == of("_count"), "{family}");
            assert!(of("_sum") >= 0.0, "{family}");
        }
    }
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ => {
            let is_plain = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
            assert!(text.chars().all(is_plain), "{text} is no number");
            text.parse().expect(text)
        }
    }
}

/// `name{label="value",…} number`
fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let (name, mut rest) = match series.split_once('{') {
        None => (series, ""),
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
    };
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        assert!(is_name(label) && !label.contains(':'), "{line}");
        let (value, after) = quoted(after, line);
        assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
        let next = after.strip_prefix(',');
        assert!(after.is_empty() || next.is_some(), "{line}");
        rest = next.unwrap_or_default();
    }
    (name.to_owned(), labels, number(value))
}

/// A label's value up to its closing quote, and what is behind that.
fn quoted<'a>(text: &'a str, line: &str) -> (String, &'a str) {
    let (mut value, mut chars) = (String::new(), text.char_indices());
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                Some((_, 'n')) => value.push('\n'),
                _ => panic!("unknown escape in {line}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote in {line}")
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    const RIGHT: &str = "\
# HELP a_total Counts.
# TYPE a_total counter
a_total{x=\"1\",y=\"say \\\"no\\\"\"} 3
a_total{x=\"2\"} 4
# HELP h Times.
# TYPE h histogram
h_bucket{le=\"0.5\"} 1
h_bucket{le=\"+Inf\"} 2
h_sum 3.5
h_count 2
";

    #[test]
    fn figures_are_found_by_their_labels() {
        let read = Exposition::read(RIGHT);
        assert_eq!(read.sum("a_total", &[]), 7.0);
        assert_eq!(read.sum("a_total", &[("y", "say \"no\"")]), 3.0);
        assert!(read.has("h_count", &[]) && !read.has("a_total", &[("x", "3")]));
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        for (from, to) in [
            ("# HELP a_total Counts.\n", ""),
            ("# TYPE a_total counter\n", ""),
            ("x=\"2\"", "x=\"1\",y=\"say \\\"no\\\"\""),
            ("h_count 2", "h_count 3"),
            ("\"+Inf\"} 2", "\"1\"} 2"),
            ("le=\"0.5\"} 1", "le=\"0.5\"} 9"),
            ("h_sum 3.5\n", ""),
            ("a_total{x=\"2\"} 4", "b{x=\"2\"} 4"),
            ("} 4", "} four"),
            ("x=\"2\"", "x=2"),
            ("h_count 2\n", "h_count 2"),
        ] {
            assert!(RIGHT.contains(from));
            let wrong = RIGHT.replacen(from, to, 1);
            assert!(
                catch_unwind(|| Exposition::read(&wrong)).is_err(),
                "{wrong}"
            );
        }
    }
}
