use proptest::prelude::*;
use serde_json::json;

use super::*;

fn rendered(text: &str, given: Value) -> Result<String, RenderError> {
    let Value::Object(given) = given else {
        panic!("no object")
    };
    render(
        text,
        Variables {
            given: &given,
            defaults: &Map::new(),
        },
        Escape::None,
    )
}

fn text(text: &str, given: Value) -> String {
    rendered(text, given).unwrap()
}

#[test]
fn values_are_looked_up_by_their_path() {
    let given = json!({"name": "Ada", "order": {"id": 17, "total": 99.5, "paid": true,
        "items": [{"sku": "a"}, {"sku": "b"}]}});
    for (template, expected) in [
        ("Hello {{name}}", "Hello Ada"),
        ("Hello {{ name }}!", "Hello Ada!"),
        (
            "{{order.id}}/{{order.total}}/{{order.paid}}",
            "17/99.5/true",
        ),
        ("{{order.items.1.sku}}", "b"),
        ("{{ name | upper }} {{ name | lower }}", "ADA ada"),
        ("{{ order.items | json }}", r#"[{"sku":"a"},{"sku":"b"}]"#),
        ("", ""),
        ("no placeholder", "no placeholder"),
    ] {
        assert_eq!(text(template, given.clone()), expected, "{template}");
    }
}

#[test]
fn a_single_brace_and_a_backslash_are_text() {
    let given = json!({"name": "Ada"});
    for (template, expected) in [
        ("{name} {{name}}", "{name} Ada"),
        ("{# no comment #} {{name}}", "{# no comment #} Ada"),
        (r#"{"to": "{{name}}"}"#, r#"{"to": "Ada"}"#),
        (r"C:\{{name}}\", r"C:\Ada\"),
        (r"\\{{name}}\n\{", r"\\Ada\n\{"),
        ("}} {{name}} }", "}} Ada }"),
        ("{{name}}}", "Ada}"),
    ] {
        assert_eq!(text(template, given.clone()), expected, "{template}");
    }
}

#[test]
fn blocks_are_tinytemplates() {
    let given = json!({"vip": true, "notes": "", "notify": "yes", "items": ["a", "b"],
        "order": {"lines": [{"n": 1, "tags": ["x", "y"]}]}});
    for (template, expected) in [
        ("{{ if vip }}V{{ else }}-{{ endif }}", "V"),
        ("{{ if not vip }}V{{ else }}-{{ endif }}", "-"),
        (
            "{{ if notes }}N{{ else }}-{{ endif }}{{ if not notes }}!{{ endif }}",
            "-!",
        ),
        (
            "{{ if notify }}{{ if notes }}a{{ else }}b{{ endif }}{{ endif }}",
            "b",
        ),
        (
            "{{ for x in items }}{{ @index }}{{ x }}{{ if @last }}.{{ else }},{{ endif }}{{ endfor }}",
            "0a,1b.",
        ),
        (
            "{{ for l in order.lines }}{{ for t in l.tags }}{{ l.n }}{{ t }} {{ endfor }}{{ endfor }}",
            "1x 1y ",
        ),
        ("{{ with order.lines.0 as l }}{{ l.n }}{{ endwith }}", "1"),
        ("a {{- if vip -}} b {{- endif }} c", "ab c"),
    ] {
        assert_eq!(text(template, given.clone()), expected, "{template}");
    }
}

#[test]
fn a_missing_variable_is_named_with_its_place() {
    let given = json!({"user": {"name": null}, "items": [{"a": 1}]});
    for (template, name, line, column) in [
        ("Hello {{ nobody }}", "nobody", 1, 7),
        ("x\n  {{user.name}}", "user.name", 2, 3),
        ("{{ user.name.first }}", "user.name.first", 1, 1),
        ("é {{ if a.b }}{{ endif }}", "a.b", 1, 3),
        (
            "{\n{{- for i in items }}\n{{ i.b }}{{ endfor }}",
            "i.b",
            3,
            1,
        ),
        ("{{ for i in none }}{{ endfor }}", "none", 1, 1),
    ] {
        let expected = RenderError::MissingVariable {
            name: name.to_owned(),
            line,
            column,
        };
        assert_eq!(
            rendered(template, given.clone()),
            Err(expected),
            "{template}"
        );
    }
}

#[test]
fn a_value_that_does_not_fit_its_place_is_named() {
    let given = json!({"user": {"name": "Ada"}, "items": [1]});
    for (template, start) in [
        ("{{ user }}", r#"variable "user" is an object"#),
        ("{{ items }}", r#"variable "items" is a list"#),
        (
            "{{ for x in user }}{{ endfor }}",
            r#"variable "user" is not a list"#,
        ),
    ] {
        let error = rendered(template, given.clone()).unwrap_err();
        assert_eq!(error.code(), "wrong_variable");
        assert!(error.to_string().starts_with(start), "{error}");
    }
}

#[test]
fn a_template_that_does_not_parse_says_where() {
    for (template, line, column, message) in [
        ("Hello {{name", 1, 7, "{{ is not closed by }} on its line"),
        (
            "a\n b {{ na me }}",
            2,
            4,
            "\"na me\" is no path of a variable",
        ),
        ("{{}}", 1, 1, "a variable's name is missing"),
        ("{{ if a }}x", 1, 1, "this block is not closed"),
        ("{{ endif }}", 1, 1, "{{ endif }} without {{ if }}"),
        (
            "{{ if a }}{{ else }}{{ else }}{{ endif }}",
            1,
            21,
            "{{ else }} without {{ if }}",
        ),
        (
            "{{ for a }}{{ endfor }}",
            1,
            1,
            "expected {{ for NAME in PATH }}",
        ),
        ("{{ name | shout }}", 1, 1, "unknown formatter \"shout\""),
        (
            "{{ call other with x }}",
            1,
            1,
            "{{ call }} is not available",
        ),
        ("{{ @index }}", 1, 1, "@index stands outside of {{ for }}"),
        ("{{ @root }}", 1, 1, "\"@root\" is no path of a variable"),
        ("{{ if not }}{{ endif }}", 1, 1, ""),
    ] {
        match check(template) {
            Err(error) => {
                assert_eq!((error.line, error.column), (line, column), "{template}");
                assert!(error.message.starts_with(message), "{template}: {error}");
            }
            // `not` alone is a variable of that name.
            Ok(()) => assert_eq!(message, "", "{template}"),
        }
    }
}

#[test]
fn defaults_stand_behind_what_is_given() {
    let given = json!({"name": "Ada"});
    let defaults = json!({"name": "Guest", "shop": "Herald"});
    let variables = Variables {
        given: given.as_object().unwrap(),
        defaults: defaults.as_object().unwrap(),
    };
    let rendered = render("{{name}} at {{shop}}", variables, Escape::None);
    assert_eq!(rendered.unwrap(), "Ada at Herald");
}

#[test]
fn html_is_escaped_unless_it_says_otherwise() {
    let given = json!({"name": "<b>&\"'"});
    let given = given.as_object().unwrap();
    let variables = Variables {
        given,
        defaults: &Map::new(),
    };
    let rendered = render(
        "<p>{{name}}|{{ name | unescaped }}",
        variables,
        Escape::Html,
    )
    .unwrap();
    assert_eq!(rendered, "<p>&lt;b&gt;&amp;&quot;&#39;|<b>&\"'");
}

#[test]
fn what_grows_without_end_is_stopped() {
    let many: Vec<u32> = (0..1_000).collect();
    let given = json!({"xs": many, "long": "x".repeat(200_000)});
    let nested =
        "{{ for a in xs }}{{ for b in xs }}{{ for c in xs }}{{ endfor }}{{ endfor }}{{ endfor }}";
    assert_eq!(
        rendered(nested, given.clone()),
        Err(RenderError::TooManyRounds)
    );
    let long = "{{ for a in xs }}{{ long }}{{ endfor }}";
    assert_eq!(rendered(long, given.clone()), Err(RenderError::TooLong));
    let literal = format!("{{{{ for a in xs }}}}{}{{{{ endfor }}}}", "y".repeat(1_000));
    assert_eq!(rendered(&literal, given), Err(RenderError::TooLong));
    assert!(check(&"x".repeat(MAX_SOURCE_BYTES + 1)).is_err());
    let deep = format!("{}{}", "{{ if a }}".repeat(17), "{{ endif }}".repeat(17));
    assert!(
        check(&deep)
            .unwrap_err()
            .message
            .contains("more than 16 blocks")
    );
}

/// A round costs what its tags cost, also of those that write nothing.
#[test]
fn a_loop_over_a_long_list_may_go_round_less_often_the_more_there_is_in_it() {
    let many: Vec<u32> = (0..50_000).collect();
    let given = json!({"xs": many, "off": false});
    let body = |tags| {
        let quiet = "{{ if off }}{{ endif }}".repeat(tags);
        format!("{{{{ for x in xs }}}}{quiet}{{{{ endfor }}}}")
    };
    assert_eq!(rendered(&body(5), given.clone()), Ok(String::new()));
    assert_eq!(
        rendered(&body(2_500), given),
        Err(RenderError::TooManyRounds)
    );
}

#[test]
fn only_what_is_named_is_copied() {
    let given = json!({"a": {"b": 1, "c": 2}, "d": [1], "e": 3});
    let given = given.as_object().unwrap();
    let parsed = Parsed::new("{{a.b}} {{d.0}} {{a.b.x}}").unwrap();
    let context = context(
        &parsed,
        Variables {
            given,
            defaults: &Map::new(),
        },
    );
    assert_eq!(
        Value::Object(context),
        json!({"": null, "a": {"b": 1}, "d": [1]})
    );
}

proptest! {
    #[test]
    fn text_without_placeholders_renders_to_itself(text in "[a-z{}\\\\#%\n -]{0,60}") {
        prop_assume!(!text.contains("{{"));
        prop_assert_eq!(rendered(&text, json!({})), Ok(text.clone()));
        // Beside a placeholder it goes another way, and must come out the same.
        let beside = format!("{text} {{{{ x }}}}");
        prop_assume!(!format!("{text} ").contains("{{"));
        prop_assert_eq!(rendered(&beside, json!({"x": 1})), Ok(format!("{text} 1")));
    }

    #[test]
    fn no_text_makes_it_panic(text in "([a-z]|\\{\\{|\\}\\}|[{}@|. é\\\\-]|if|not|for| in |else|endif|endfor|with| as ){0,30}") {
        let checked = check(&text);
        let rendered = rendered(&text, json!({"a": 1, "b": [1, {"c": null}], "notes": true}));
        if checked.is_err() && text.contains("{{") {
            prop_assert!(matches!(rendered, Err(RenderError::Template(_))));
        }
    }
}
