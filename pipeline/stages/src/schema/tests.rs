use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;

fn faults(schema: &Value, payload: &Value) -> Vec<String> {
    let schema = Schema::compile(schema).unwrap();
    schema
        .faults(payload)
        .iter()
        .map(SchemaFault::to_string)
        .collect()
}

fn refusal(schema: &Value) -> String {
    check_schema(schema).unwrap_err().to_string()
}

#[test]
fn every_fault_is_told_with_its_place() {
    let schema = json!({
        "type": "object",
        "required": ["order_id", "customer"],
        "properties": {
            "order_id": { "type": "integer" },
            "customer": { "$ref": "#/$defs/customer" },
            "lines": { "type": "array", "items": { "required": ["sku"] } },
        },
        "$defs": { "customer": { "required": ["email"],
            "properties": { "email": { "type": "string", "pattern": "^[^@]+@[^@]+$" } } } },
    });
    assert!(
        faults(
            &schema,
            &json!({ "order_id": 1, "customer": { "email": "a@b" } })
        )
        .is_empty()
    );
    let wrong = json!({ "order_id": "x", "customer": { "email": "a" }, "lines": [{}, { "a": 1 }] });
    let told = faults(&schema, &wrong);
    for place in [
        "payload.order_id: ",
        "payload.customer.email: ",
        "payload.lines.0.sku: ",
        "payload.lines.1.sku: ",
    ] {
        assert!(
            told.iter().any(|one| one.starts_with(place)),
            "{place} {told:#?}"
        );
    }
    assert_eq!(told.len(), 4);
    assert_eq!(
        faults(&schema, &json!({ "order_id": 1 })),
        ["payload.customer: \"customer\" is a required property"]
    );
}

#[test]
fn of_many_faults_the_first_are_told_and_none_at_length() {
    let schema = json!({ "items": { "type": "integer" } });
    let payload = json!(vec!["x".repeat(10_000); 100]);
    let told = faults(&schema, &payload);
    assert_eq!(told.len(), MAX_FAULTS);
    assert!(told.iter().all(|one| one.len() < 1_000), "{told:#?}");
}

#[test]
fn what_is_told_of_a_large_payload_takes_little_memory() {
    let payload = json!(vec![5; 150_000]);
    let plain = json!({ "items": { "type": "string" } });
    assert_eq!(
        faults(&plain, &payload),
        ["payload.0: 5 is not of type \"string\""]
    );
    let choice = json!({ "items": { "anyOf": [{ "type": "string" }, { "type": "null" }] } });
    assert_eq!(
        faults(&choice, &payload),
        ["payload: is against its schema, and too large to say where"]
    );
    assert_eq!(faults(&choice, &json!([5])).len(), 1);
}

#[test]
fn the_draft_is_the_one_that_the_schema_names() {
    for (draft, wrong) in [
        (
            "http://json-schema.org/draft-04/schema#",
            json!({ "id": "x", "minimum": 1, "exclusiveMinimum": true }),
        ),
        (
            "http://json-schema.org/draft-07/schema#",
            json!({ "if": true, "then": { "maximum": 0 } }),
        ),
        (
            "https://json-schema.org/draft/2019-09/schema",
            json!({ "exclusiveMinimum": 1 }),
        ),
        (
            "https://json-schema.org/draft/2020-12/schema",
            json!({ "exclusiveMinimum": 1 }),
        ),
    ] {
        let mut schema = wrong;
        schema["$schema"] = json!(draft);
        assert_eq!(faults(&schema, &json!(1)).len(), 1, "{draft}");
        assert_eq!(faults(&schema, &json!("x")).len(), 0, "{draft}");
    }
}

#[test]
fn what_is_no_schema_is_refused() {
    for schema in [
        json!({ "type": "objekt" }),
        json!({ "properties": { "a": { "minimum": "x" } } }),
        json!({ "pattern": "(" }),
        json!({ "required": "a" }),
        json!({ "$schema": "https://example.com/own" }),
        json!({ "$ref": "#/$defs/missing" }),
        json!([]),
    ] {
        assert!(check_schema(&schema).is_err(), "{schema}");
    }
}

#[test]
fn nothing_outside_a_schema_is_looked_up() {
    for reference in [
        "https://127.0.0.1:1/x",
        "http://127.0.0.1:1/x#/a",
        "file:///etc/passwd",
        "other.json",
        "urn:x",
        "#anchor",
    ] {
        for schema in [
            json!({ "$ref": reference }),
            json!({ "$id": "https://127.0.0.1:1/", "properties": { "a": { "$ref": reference } } }),
        ] {
            let told = refusal(&schema);
            assert!(told.contains("no JSON pointer into this schema"), "{told}");
        }
    }
    let base = json!({ "properties": { "a": { "$id": "https://127.0.0.1:1/", "$ref": "#" } } });
    assert!(refusal(&base).contains("$id within the schema"));
    let dynamic = json!({ "properties": { "a": { "$dynamicRef": "https://127.0.0.1:1/x" } } });
    assert!(refusal(&dynamic).contains("$dynamicRef"));
}

/// Each of 40 subschemas applies the next one twice.
fn doubling(applied: impl Fn(Value) -> Value) -> Value {
    let mut schemas = serde_json::Map::new();
    for n in 0..40 {
        let next = json!({ "$ref": format!("#/$defs/a{}", n + 1) });
        schemas.insert(format!("a{n}"), applied(next));
    }
    schemas.insert("a40".to_owned(), json!({ "type": "string" }));
    json!({ "$defs": schemas, "$ref": "#/$defs/a0" })
}

#[test]
fn a_schema_whose_cost_has_no_bound_is_refused() {
    let chain: serde_json::Map<String, Value> = (0..1_000)
        .map(|n| {
            (
                format!("a{n}"),
                json!({ "$ref": format!("#/$defs/a{}", n + 1) }),
            )
        })
        .chain([("a1000".to_owned(), json!(true))])
        .collect();
    let mut deep = json!(true);
    for _ in 0..100 {
        deep = json!({ "properties": { "a": deep } });
    }
    let mut nots = json!(true);
    for _ in 0..40 {
        nots = json!({ "not": nots });
    }
    let mut unevaluated = json!({ "properties": { "a": true } });
    for _ in 0..12 {
        unevaluated = json!({ "allOf": [unevaluated], "unevaluatedProperties": false });
    }
    let patterns: Vec<Value> = (0..300)
        .map(|n| json!({ "pattern": n.to_string() }))
        .collect();
    for (schema, told) in [
        (json!({ "$ref": "#" }), "refers to itself"),
        (
            json!({ "anyOf": [{ "not": { "$ref": "#" } }] }),
            "refers to itself",
        ),
        (
            json!({ "$defs": chain, "$ref": "#/$defs/a0" }),
            "one in the other",
        ),
        (
            doubling(|next| json!({ "anyOf": [next, next] })),
            "one in the other",
        ),
        (
            json!({ "items": { "anyOf": vec![json!({ "$ref": "#" }); 4] } }),
            "apply to one value",
        ),
        (deep, "nested deeper"),
        (nots, "one in the other"),
        (unevaluated, "apply to one value"),
        (json!({ "anyOf": patterns }), "more than 200 patterns"),
        (
            json!({ "anyOf": vec![json!({}); 3_000] }),
            "more than 2000 subschemas",
        ),
        (json!({ "description": "x".repeat(300_000) }), "longer than"),
        (json!({ "pattern": "(?=a)b" }), "regex"),
        (json!({ "pattern": "(\\p{L}{1,500}){1,500}x" }), "regex"),
    ] {
        let begun = Instant::now();
        let refused = refusal(&schema);
        assert!(refused.contains(told), "{told}: {refused}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{told}");
    }
}

/// A tree: each node with two more.
fn tree() -> Value {
    let node = json!({ "$ref": "#/$defs/node" });
    json!({ "$ref": "#/$defs/node", "$defs": { "node": { "type": "object",
        "properties": { "left": node, "right": node, "n": { "type": "integer" } } } } })
}

#[test]
fn a_schema_may_refer_to_itself_for_what_is_inside() {
    let payload = json!({ "left": { "right": { "n": 1 } }, "right": { "n": "x" } });
    let told = faults(&tree(), &payload);
    assert_eq!(told, ["payload.right.n: \"x\" is not of type \"integer\""]);
}

#[test]
fn a_payload_that_takes_too_many_steps_is_refused_and_not_asked_about() {
    let subschemas: Vec<Value> = (0..1_000).map(|n| json!({ "minimum": n })).collect();
    let schema = json!({ "items": { "anyOf": subschemas } });
    assert!(faults(&schema, &json!([5, 7])).is_empty());
    let told = faults(&schema, &json!(vec![5; 10_000]));
    assert_eq!(told, ["payload: is too large for all that its schema asks"]);
    let mut deep = json!([]);
    for _ in 0..30 {
        deep = json!([deep]);
    }
    let doubling = doubling(|next| json!({ "items": { "anyOf": [next, next] } }));
    let told = faults(&doubling, &deep);
    assert_eq!(told, ["payload: is too large for all that its schema asks"]);
    // As deep as what is parsed may be.
    let mut deep = json!({});
    for _ in 0..126 {
        deep = json!({ "left": deep });
    }
    let told = faults(&tree(), &deep);
    assert_eq!(told, ["payload: is nested too deep for its schema"]);
}

/// On half of the stack that a stage's thread has.
#[test]
fn what_goes_as_deep_as_it_may_can_be_asked() {
    let ask = || {
        let mut payload = json!({ "n": "x" });
        while faults(&tree(), &payload) != ["payload: is nested too deep for its schema"] {
            payload = json!({ "left": payload });
        }
        let mut nested = json!({ "type": "string" });
        for _ in 0..14 {
            nested = json!({ "anyOf": [nested] });
        }
        let schema = json!({ "properties": { "a": { "items": nested } } });
        assert_eq!(faults(&schema, &json!({ "a": [1] })).len(), 1);
        let mut nested = json!({ "type": "string" });
        for _ in 0..30 {
            nested = json!({ "items": nested });
        }
        assert!(faults(&nested, &json!([[[[]]]])).is_empty());
    };
    thread::scope(|scope| {
        let small = thread::Builder::new().stack_size(1 << 20);
        small.spawn_scoped(scope, ask).unwrap().join().unwrap();
    });
}

#[test]
fn no_pattern_takes_more_than_linear_time() {
    let begun = Instant::now();
    for pattern in ["^(a+)+$", "^(a|a)*$", "(x+x+)+y", "(a|aa)+$"] {
        let schema = json!({ "pattern": pattern });
        assert_eq!(faults(&schema, &json!("a".repeat(50_000) + "!")).len(), 1);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
}
