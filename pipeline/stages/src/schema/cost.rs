//! What a schema may cost, found out without a payload.
//!
//! A schema is a graph: its subschemas, each with those that it applies to the same value (`allOf`,
//! `$ref`, …) and those that it applies to what is inside (`properties`, `items`, …). From this
//! follows for each depth of a payload how many subschemas apply to one value at most, and with it
//! how many steps a payload of a known size takes and how deep they stand in each other.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// How many subschemas there may be.
const MAX_NODES: usize = 2_000;
/// How many patterns, each of which is compiled.
const MAX_PATTERNS: usize = 200;
/// How deep a schema may be as JSON.
const MAX_NESTING: usize = 64;
/// How many subschemas may apply to one value one in the other.
const MAX_IN_PLACE: usize = 16;
/// How many may apply to one value in all.
const MAX_AT_ONCE: f64 = 10_000.0;
/// How many pairs of subschemas are looked at to know.
const MAX_PAIRS: usize = 100_000;
/// How many steps a payload may take.
const MAX_STEPS: f64 = 4_000_000.0;
/// In how many of them every fault can be noted: each note takes some 400 bytes.
const MAX_NOTED: f64 = 100_000.0;
/// How many steps may stand in each other: each takes some 4 KB of stack in a build that is not
/// optimized.
const MAX_STACK: usize = 256;
/// What is parsed is no deeper than this.
const DEEPEST: usize = 128;
/// `unevaluated…` asks its neighbours once more what they have looked at.
const ASKED_AGAIN: f64 = 4.0;
/// So many values of an `enum`, or bytes of a text, are one step.
const VALUES_A_STEP: usize = 8;
const BYTES_A_STEP: usize = 64;

/// Keywords with a subschema, or a list of them, for the same value.
const IN_PLACE: [&str; 7] = ["allOf", "anyOf", "oneOf", "not", "if", "then", "else"];
/// Those of which a fault is one of all their subschemas' faults.
const CHOICES: [&str; 2] = ["anyOf", "oneOf"];
/// Keywords with subschemas by name, for the same value.
const NAMED_IN_PLACE: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords with a subschema, or a list of them, for the values inside.
const INSIDE: [&str; 8] = [
    "additionalProperties",
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords that could lead out of what is looked at here.
const REFUSED: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// What a schema may cost.
#[derive(Debug)]
pub(super) struct Cost {
    /// How many subschemas apply to one value down to each depth. Beyond the last there are none.
    at_once: Vec<f64>,
    /// How many of them stand in each other, at each depth.
    in_place: usize,
    has_choices: bool,
}

/// Which of a payload's faults can be told without taking too much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    All,
    First,
    None,
}

impl Cost {
    /// The cost of a schema; what is wrong with it when that has no bound.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        if nesting(schema) > MAX_NESTING {
            return Err(format!("nested deeper than {MAX_NESTING}"));
        }
        let graph = Graph::of(schema)?;
        let mut reaches = Reaches::new(&graph);
        let mut in_place = 0;
        for node in 0..graph.nodes.len() {
            in_place = in_place.max(reaches.follow(node, 0)?);
        }
        let cost = Self {
            at_once: at_once(&graph, &reaches),
            in_place,
            has_choices: graph.has_choices,
        };
        // What already few levels make too much is too much for any payload.
        if cost.at_depth(8) > MAX_AT_ONCE {
            return Err(format!(
                "more than {MAX_AT_ONCE} subschemas apply to one value"
            ));
        }
        Ok(cost)
    }

    fn at_depth(&self, depth: usize) -> f64 {
        let last = self.at_once.len().saturating_sub(1);
        self.at_once.get(depth.min(last)).copied().unwrap_or(0.0)
    }

    /// Whether a payload takes a bounded number of steps, and what can be told of it; else what to
    /// say instead.
    pub(super) fn check(&self, payload: &Value) -> Result<Told, String> {
        let depth = nesting(payload);
        let steps = size(payload) as f64 * self.at_depth(depth);
        if steps > MAX_STEPS {
            return Err("is too large for all that its schema asks".to_owned());
        }
        if self.at_once.len().min(depth) * (self.in_place + 1) > MAX_STACK {
            return Err("is nested too deep for its schema".to_owned());
        }
        Ok(if steps <= MAX_NOTED {
            Told::All
        } else if self.has_choices {
            Told::None
        } else {
            Told::First
        })
    }
}

/// A subschema.
struct Node {
    /// What it takes itself, in steps.
    own: f64,
    /// What it applies to the same value.
    in_place: Vec<usize>,
    /// What it applies to a value inside, whichever that is.
    inside: Vec<usize>,
    /// What it applies to the value of one name.
    named: Vec<usize>,
    /// How often it asks those in place.
    asks: f64,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            own: 1.0,
            in_place: Vec::new(),
            inside: Vec::new(),
            named: Vec::new(),
            asks: 1.0,
        }
    }
}

struct Graph<'a> {
    root: &'a Value,
    nodes: Vec<Node>,
    /// By address: a subschema that is referred to is the one that lies there.
    known: HashMap<*const Value, usize>,
    open: Vec<(usize, &'a Value)>,
    patterns: usize,
    has_choices: bool,
}

impl<'a> Graph<'a> {
    fn of(root: &'a Value) -> Result<Self, String> {
        let mut graph = Self {
            root,
            nodes: Vec::new(),
            known: HashMap::new(),
            open: Vec::new(),
            patterns: 0,
            has_choices: false,
        };
        graph.node(root);
        while let Some((index, schema)) = graph.open.pop() {
            if graph.nodes.len() > MAX_NODES {
                return Err(format!("more than {MAX_NODES} subschemas"));
            }
            if let Value::Object(fields) = schema {
                graph.nodes[index] = graph.read(index, fields)?;
            }
            if graph.patterns > MAX_PATTERNS {
                return Err(format!("more than {MAX_PATTERNS} patterns"));
            }
        }
        Ok(graph)
    }

    fn node(&mut self, schema: &'a Value) -> usize {
        let next = self.nodes.len();
        let index = *self.known.entry(std::ptr::from_ref(schema)).or_insert(next);
        if index == next {
            self.nodes.push(Node::default());
            self.open.push((index, schema));
        }
        index
    }

    fn read(&mut self, index: usize, fields: &'a Map<String, Value>) -> Result<Node, String> {
        let mut node = Node::default();
        for (keyword, value) in fields {
            let name = keyword.as_str();
            match name {
                "$ref" => node.in_place.push(self.referred(value)?),
                "$id" | "id" if index > 0 && value.is_string() => {
                    return Err(format!("{name} within the schema is not supported"));
                }
                _ if REFUSED.contains(&name) => return Err(format!("{name} is not supported")),
                _ if IN_PLACE.contains(&name) => self.each(value, &mut node.in_place),
                _ if NAMED_IN_PLACE.contains(&name) => self.by_name(value, &mut node.in_place),
                _ if INSIDE.contains(&name) => self.each(value, &mut node.inside),
                "patternProperties" => {
                    self.by_name(value, &mut node.inside);
                    self.patterns += node.inside.len();
                }
                "pattern" => self.patterns += 1,
                "properties" => self.by_name(value, &mut node.named),
                _ => {}
            }
            self.has_choices |= CHOICES.contains(&name);
            let is_read = matches!(name, "enum" | "const" | "required" | "dependentRequired");
            if is_read {
                node.own += (size(value) / VALUES_A_STEP) as f64;
            }
            if name.starts_with("unevaluated") {
                node.asks *= ASKED_AGAIN;
            }
        }
        Ok(node)
    }

    fn each(&mut self, value: &'a Value, into: &mut Vec<usize>) {
        match value {
            Value::Array(schemas) => {
                for schema in schemas {
                    into.push(self.node(schema));
                }
            }
            schema => into.push(self.node(schema)),
        }
    }

    fn by_name(&mut self, value: &'a Value, into: &mut Vec<usize>) {
        for schema in value.as_object().into_iter().flat_map(Map::values) {
            into.push(self.node(schema));
        }
    }

    fn referred(&mut self, reference: &Value) -> Result<usize, String> {
        let text = reference.as_str().unwrap_or_default();
        let pointer = text.strip_prefix('#').filter(|pointer| {
            !pointer.contains('%') && (pointer.is_empty() || pointer.starts_with('/'))
        });
        let Some(pointer) = pointer else {
            return Err(format!(
                "$ref {text:?} is no JSON pointer into this schema, such as #/$defs/address"
            ));
        };
        match self.root.pointer(pointer) {
            Some(schema) => Ok(self.node(schema)),
            None => Err(format!("$ref {text:?} points to nothing")),
        }
    }
}

fn too_many_in_place() -> String {
    format!(
        "a subschema refers to itself without going into the value, or more than {MAX_IN_PLACE} \
         apply to it one in the other"
    )
}

/// How often a subschema comes to be applied.
type Times = Vec<(usize, f64)>;

/// For each subschema what applies to the same value because of it, itself included.
struct Reaches<'g, 'a> {
    graph: &'g Graph<'a>,
    of: Vec<Option<(Times, usize)>>,
    pairs: usize,
}

impl<'g, 'a> Reaches<'g, 'a> {
    fn new(graph: &'g Graph<'a>) -> Self {
        Self {
            graph,
            of: vec![None; graph.nodes.len()],
            pairs: 0,
        }
    }

    /// Answers how many stand in each other from this one on.
    fn follow(&mut self, index: usize, above: usize) -> Result<usize, String> {
        if let Some((_, longest)) = &self.of[index] {
            return Ok(*longest);
        }
        if above >= MAX_IN_PLACE {
            return Err(too_many_in_place());
        }
        let graph = self.graph;
        let node = &graph.nodes[index];
        let mut times = HashMap::from([(index, 1.0)]);
        let mut longest = 0;
        for next in &node.in_place {
            longest = longest.max(self.follow(*next, above + 1)?);
            for (reached, often) in self.times(*next) {
                *times.entry(*reached).or_insert(0.0) += often * node.asks;
            }
        }
        if longest >= MAX_IN_PLACE {
            return Err(too_many_in_place());
        }
        self.pairs += times.len();
        if self.pairs > MAX_PAIRS {
            return Err("its subschemas refer to each other too often".to_owned());
        }
        self.of[index] = Some((times.into_iter().collect(), longest + 1));
        Ok(longest + 1)
    }

    fn times(&self, index: usize) -> &[(usize, f64)] {
        self.of[index].as_ref().map_or(&[], |(times, _)| times)
    }

    /// What applies to a value inside because of a subschema. Of names, a value has one.
    fn inside(&self, node: &Node) -> Times {
        let mut times: HashMap<usize, f64> = HashMap::new();
        for (reached, often) in node.named.iter().flat_map(|next| self.times(*next)) {
            let most = times.entry(*reached).or_insert(0.0);
            *most = often.max(*most);
        }
        for (reached, often) in node.inside.iter().flat_map(|next| self.times(*next)) {
            *times.entry(*reached).or_insert(0.0) += often;
        }
        times.into_iter().collect()
    }
}

/// How many steps one value takes at the most, down to each depth.
fn at_once(graph: &Graph<'_>, reaches: &Reaches<'_, '_>) -> Vec<f64> {
    let inside: Vec<Times> = graph
        .nodes
        .iter()
        .map(|node| reaches.inside(node))
        .collect();
    let mut times = vec![0.0; graph.nodes.len()];
    for (reached, often) in reaches.times(0) {
        times[*reached] = *often;
    }
    let mut levels: Vec<f64> = Vec::new();
    while levels.len() <= DEEPEST && times.iter().any(|often| *often > 0.0) {
        let own = times
            .iter()
            .zip(&graph.nodes)
            .map(|(often, node)| often * node.own);
        let before = levels.last().copied().unwrap_or(0.0);
        levels.push(own.sum::<f64>().max(before));
        let mut next = vec![0.0; times.len()];
        for (often, inside) in times.iter().zip(&inside).filter(|(often, _)| **often > 0.0) {
            for (reached, each) in inside {
                // Beyond any limit already: it need not become infinite.
                next[*reached] = f64::min(next[*reached] + often * each, 1e12);
            }
        }
        times = next;
    }
    levels
}

/// How deep a value is: 1 for one with nothing inside.
fn nesting(value: &Value) -> usize {
    let inside = |values: &mut dyn Iterator<Item = &Value>| values.map(nesting).max().unwrap_or(0);
    1 + match value {
        Value::Array(items) => inside(&mut items.iter()),
        Value::Object(fields) => inside(&mut fields.values()),
        _ => 0,
    }
}

/// How many values there are, long texts counted by their length.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => {
            let keys: usize = fields.keys().map(|key| key.len() / BYTES_A_STEP).sum();
            keys + fields.values().map(size).sum::<usize>()
        }
        Value::String(text) => text.len() / BYTES_A_STEP,
        _ => 0,
    }
}
