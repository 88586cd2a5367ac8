//! Rules and templates, each beside what must come of a payload by it. The right side knows nothing
//! of Herald: it reads the payload as anybody would.

use serde_json::{Value, json};

/// A notification as the provider sees it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Message {
    pub(super) channel: String,
    pub(super) to: String,
    pub(super) subject: Option<String>,
    pub(super) content: String,
}

/// What becomes of a payload that a rule matches.
pub(super) enum Outcome {
    Sent(Message),
    /// It cannot be rendered; the dead letter's code.
    Failed(&'static str),
}

/// A rule, its template, and what they must make of a payload.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// Empty: such a rule for every event.
    event: &'static str,
    pub(super) rule: Value,
    pub(super) template: Value,
    pub(super) outcome: fn(&Value) -> Option<Outcome>,
    /// How many payloads of the package end sent and failed by it.
    pub(super) counts: (usize, usize),
}

impl Case {
    pub(super) fn is_of(&self, event: &str) -> bool {
        self.event.is_empty() || self.event == event
    }

    pub(super) fn rule_name(&self, event: &str) -> String {
        format!("{} ({event})", self.name)
    }
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        push_to_the_default_branch(),
        deleted_ref(),
        issue_opened(),
        bug_labeled(),
        review_requested(),
        prerelease(),
        severe_advisory(),
        advisory_by_score(),
        container_published(),
        check_of_the_second_pull_request(),
        workflow_without_a_conclusion(),
        starred(),
        outside_of_a_repository(),
    ]
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    let found = path.split('.').fold(value, |value, step| &value[step]);
    found.as_str().unwrap_or_else(|| panic!("{path}: {found}"))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn sent(channel: &str, to: impl Into<String>, subject: Option<&str>, content: String) -> Outcome {
    Outcome::Sent(Message {
        channel: channel.to_owned(),
        to: to.into(),
        subject: subject.map(str::to_owned),
        content,
    })
}

/// CEL over two fields of different depth; loops in each other.
fn push_to_the_default_branch() -> Case {
    Case {
        name: "push to the default branch",
        event: "push",
        rule: json!({
            "when": "payload.ref == 'refs/heads/' + payload.repository.default_branch && !payload.deleted",
            "recipient": "{{pusher.email}}",
        }),
        template: json!({
            "channel": "email",
            "subject": "{{repository.full_name}}: {{ref}}",
            "content": "{{pusher.name}} pushed to {{ref}}:\n\
                {{for commit in commits}}* {{commit.id}} {{commit.message}}, by {{commit.author.name}}:\
                {{for file in commit.added}} +{{file}}{{endfor}}\
                {{for file in commit.removed}} -{{file}}{{endfor}}\n{{endfor}}\
                {{if forced}}By force.{{else}}{{compare}}{{endif}}",
        }),
        outcome: |payload| {
            let branch = text(payload, "ref").strip_prefix("refs/heads/")?;
            if branch != text(payload, "repository.default_branch") || payload["deleted"] == true {
                return None;
            }
            let mut content = format!(
                "{} pushed to refs/heads/{branch}:\n",
                text(payload, "pusher.name")
            );
            for commit in items(&payload["commits"]) {
                let (id, message) = (text(commit, "id"), text(commit, "message"));
                content += &format!("* {id} {message}, by {}:", text(commit, "author.name"));
                for file in items(&commit["added"]) {
                    content += &format!(" +{}", file.as_str()?);
                }
                for file in items(&commit["removed"]) {
                    content += &format!(" -{}", file.as_str()?);
                }
                content += "\n";
            }
            content += if payload["forced"] == true {
                "By force."
            } else {
                text(payload, "compare")
            };
            let subject = format!(
                "{}: refs/heads/{branch}",
                text(payload, "repository.full_name")
            );
            Some(sent(
                "email",
                text(payload, "pusher.email"),
                Some(&subject),
                content,
            ))
        },
        counts: (2, 0),
    }
}

/// A condition that is no text; an object that may be null.
fn deleted_ref() -> Case {
    Case {
        name: "deleted ref",
        event: "push",
        rule: json!({ "conditions": { "deleted": true }, "recipient": "#{{repository.name}}" }),
        template: json!({
            "channel": "slack",
            "content": "{{sender.login | lower}} deleted {{ref}}\
                {{if head_commit}} at {{head_commit.id}}{{else}}, which pointed nowhere{{endif}}",
        }),
        outcome: |payload| {
            if payload["deleted"] != true {
                return None;
            }
            let who = text(payload, "sender.login").to_lowercase();
            let mut content = format!("{who} deleted {}", text(payload, "ref"));
            content += &if payload["head_commit"].is_object() {
                format!(" at {}", text(payload, "head_commit.id"))
            } else {
                ", which pointed nowhere".to_owned()
            };
            let to = format!("#{}", text(payload, "repository.name"));
            Some(sent("slack", to, None, content))
        },
        counts: (6, 0),
    }
}

/// A condition; a text that may be null; a list that may be empty.
fn issue_opened() -> Case {
    Case {
        name: "issue opened",
        event: "issues",
        rule: json!({
            "conditions": { "action": "opened" },
            "recipient": "{{issue.user.login}}@example.com",
            "priority": "high",
        }),
        template: json!({
            "channel": "email",
            "subject": "#{{issue.number}} {{issue.title | upper}}",
            "content": "{{if issue.body}}{{issue.body}}{{else}}No text.{{endif}}\n\
                {{if issue.labels}}Labels:{{for label in issue.labels}} {{label.name}}{{endfor}}\
                {{else}}No labels.{{endif}}",
        }),
        outcome: |payload| {
            if payload["action"] != "opened" {
                return None;
            }
            let issue = &payload["issue"];
            let mut content = issue["body"].as_str().unwrap_or("No text.").to_owned() + "\n";
            let labels: Vec<&str> = items(&issue["labels"])
                .map(|label| text(label, "name"))
                .collect();
            content += &if labels.is_empty() {
                "No labels.".to_owned()
            } else {
                format!("Labels: {}", labels.join(" "))
            };
            let subject = format!(
                "#{} {}",
                issue["number"],
                text(issue, "title").to_uppercase()
            );
            let to = format!("{}@example.com", text(issue, "user.login"));
            Some(sent("email", to, Some(&subject), content))
        },
        counts: (6, 0),
    }
}

/// CEL over the event's name and a list of objects.
fn bug_labeled() -> Case {
    Case {
        name: "bug labeled",
        event: "issues",
        rule: json!({
            "when": "event == 'issues' && payload.action in ['labeled', 'unlabeled'] && \
                payload.issue.labels.exists(label, label.name == 'bug' && label.default)",
            "recipient": "#bugs",
            "priority": "low",
        }),
        template: json!({ "channel": "slack", "content": "{{action}}: {{issue.html_url}}" }),
        outcome: |payload| {
            let action = text(payload, "action");
            let mut labels = items(&payload["issue"]["labels"]);
            let is_bug = labels.any(|label| label["name"] == "bug" && label["default"] == true);
            let about_labels = action == "labeled" || action == "unlabeled";
            let content = format!("{action}: {}", text(payload, "issue.html_url"));
            (about_labels && is_bug).then(|| sent("slack", "#bugs", None, content))
        },
        counts: (6, 0),
    }
}

/// Conditions and CEL together; where in a loop an item is.
fn review_requested() -> Case {
    Case {
        name: "review requested",
        event: "pull_request",
        rule: json!({
            "conditions": { "pull_request.draft": false, "pull_request.base.ref": "master" },
            "when": "payload.action in ['opened', 'ready_for_review'] && \
                payload.pull_request.head.repo != null && \
                payload.pull_request.head.sha != payload.pull_request.base.sha && \
                size(payload.pull_request.requested_reviewers) > 0",
            "recipient": "{{pull_request.html_url}}",
        }),
        template: json!({
            "channel": "webhook",
            "content": "{{with pull_request as pull}}{{pull.user.login}} asks for review of {{pull.title}}:\
                {{for reviewer in pull.requested_reviewers}}\
                {{if @first}} {{else}}, {{endif}}{{reviewer.login}}{{endfor}} \
                ({{pull.base.repo.owner.login}}:{{pull.base.ref}}){{endwith}}",
        }),
        outcome: |payload| {
            let pull = &payload["pull_request"];
            let reviewers: Vec<&str> = items(&pull["requested_reviewers"])
                .map(|reviewer| text(reviewer, "login"))
                .collect();
            let wanted = pull["draft"] == false
                && pull["base"]["ref"] == "master"
                && ["opened", "ready_for_review"].contains(&text(payload, "action"))
                && !pull["head"]["repo"].is_null()
                && pull["head"]["sha"] != pull["base"]["sha"]
                && !reviewers.is_empty();
            let content = format!(
                "{} asks for review of {}: {} ({}:master)",
                text(pull, "user.login"),
                text(pull, "title"),
                reviewers.join(", "),
                text(pull, "base.repo.owner.login"),
            );
            wanted.then(|| sent("webhook", text(pull, "html_url"), None, content))
        },
        counts: (6, 0),
    }
}

/// A recipient that is the same for all; a name that may be empty.
fn prerelease() -> Case {
    Case {
        name: "prerelease",
        event: "release",
        rule: json!({ "conditions": { "release.prerelease": true }, "recipient": "+905551234567" }),
        template: json!({
            "channel": "sms",
            "content": "{{repository.name}} {{release.tag_name}}\
                {{if release.name}} {{release.name}}{{else}} without a name{{endif}}",
        }),
        outcome: |payload| {
            let release = &payload["release"];
            let (repository, tag) = (text(payload, "repository.name"), text(release, "tag_name"));
            let name = release["name"].as_str().unwrap_or_default();
            let name = if name.is_empty() {
                "without a name"
            } else {
                name
            };
            let content = format!("{repository} {tag} {name}");
            (release["prerelease"] == true).then(|| sent("sms", "+905551234567", None, content))
        },
        counts: (2, 0),
    }
}

/// CEL over an object that is not in every payload, and over a number with a fraction.
fn severe_advisory() -> Case {
    Case {
        name: "severe advisory",
        event: "security_advisory",
        rule: json!({
            "when": "has(payload.security_advisory.cvss) && payload.security_advisory.cvss.score >= 7.9",
            "recipient": "topic:security",
        }),
        template: json!({
            "channel": "push",
            "subject": "{{security_advisory.severity | upper}} {{security_advisory.cvss.score}}",
            "content": "{{security_advisory.summary}}\
                {{for one in security_advisory.vulnerabilities}}; {{one.package.ecosystem}}/{{one.package.name}} \
                {{if one.first_patched_version}}until {{one.first_patched_version.identifier}}\
                {{else}}{{one.vulnerable_version_range}}{{endif}}{{endfor}}",
        }),
        outcome: |payload| {
            let advisory = &payload["security_advisory"];
            let score = advisory["cvss"]["score"]
                .as_f64()
                .filter(|score| *score >= 7.9)?;
            let mut content = text(advisory, "summary").to_owned();
            for one in items(&advisory["vulnerabilities"]) {
                let (ecosystem, name) = (text(one, "package.ecosystem"), text(one, "package.name"));
                content += &format!("; {ecosystem}/{name} ");
                content += &match one["first_patched_version"]["identifier"].as_str() {
                    Some(version) => format!("until {version}"),
                    None => text(one, "vulnerable_version_range").to_owned(),
                };
            }
            let subject = format!("{} {score}", text(advisory, "severity").to_uppercase());
            Some(sent("push", "topic:security", Some(&subject), content))
        },
        counts: (3, 0),
    }
}

/// A condition on a number with a fraction; a text beyond the Basic Multilingual Plane.
fn advisory_by_score() -> Case {
    Case {
        name: "advisory by score",
        event: "dependabot_alert",
        rule: json!({
            "conditions": { "alert.security_advisory.cvss.score": 5.3, "alert.number": 20 },
            "recipient": "{{alert.html_url}}",
        }),
        template: json!({
            "channel": "webhook",
            "content": "{{alert.dependency.package.name}} in {{repository.full_name}}: \
                {{repository.description}}",
        }),
        outcome: |payload| {
            let alert = &payload["alert"];
            let score = alert["security_advisory"]["cvss"]["score"].as_f64();
            if score != Some(5.3) || alert["number"] != 20 {
                return None;
            }
            let content = format!(
                "{} in {}: {}",
                text(alert, "dependency.package.name"),
                text(payload, "repository.full_name"),
                text(payload, "repository.description"),
            );
            Some(sent("webhook", text(alert, "html_url"), None, content))
        },
        counts: (1, 0),
    }
}

/// CEL over keys that no dotted path can name; in all payloads but one it has nothing to look at.
fn container_published() -> Case {
    Case {
        name: "container published",
        event: "package",
        rule: json!({
            "when": "payload.package.package_version.container_metadata.labels\
                .all_labels['org.opencontainers.image.title'].startsWith('docker-')",
            "recipient": "{{sender.login}}",
        }),
        template: json!({ "channel": "push", "content": "{{package.package_version.html_url}}" }),
        outcome: |payload| {
            let version = &payload["package"]["package_version"];
            let labels = &version["container_metadata"]["labels"]["all_labels"];
            let title = labels["org.opencontainers.image.title"].as_str()?;
            let content = text(version, "html_url").to_owned();
            title
                .starts_with("docker-")
                .then(|| sent("push", text(payload, "sender.login"), None, content))
        },
        counts: (1, 0),
    }
}

/// A condition on an item of a list, which is empty in some payloads.
fn check_of_the_second_pull_request() -> Case {
    Case {
        name: "check of the second pull request",
        event: "check_run",
        rule: json!({
            "conditions": { "check_run.pull_requests.0.number": 2, "check_run.status": "completed" },
            "when": "payload.check_run.conclusion != 'success'",
            "recipient": "{{check_run.app.owner.login}}",
        }),
        template: json!({
            "channel": "push",
            "content": "{{check_run.name}}: {{check_run.conclusion}} \
                ({{check_run.output.annotations_count}} annotations)",
        }),
        outcome: |payload| {
            let run = &payload["check_run"];
            let wanted = run["pull_requests"][0]["number"] == 2
                && run["status"] == "completed"
                && run["conclusion"] != "success";
            wanted.then(|| {
                let (name, conclusion) = (text(run, "name"), text(run, "conclusion"));
                let annotations = &run["output"]["annotations_count"];
                let content = format!("{name}: {conclusion} ({annotations} annotations)");
                sent("push", text(run, "app.owner.login"), None, content)
            })
        },
        counts: (1, 0),
    }
}

/// A condition that something is null.
fn workflow_without_a_conclusion() -> Case {
    Case {
        name: "workflow without a conclusion",
        event: "workflow_run",
        rule: json!({
            "conditions": { "workflow_run.conclusion": null },
            "recipient": "{{workflow_run.head_commit.author.email}}",
        }),
        template: json!({
            "channel": "email",
            "subject": "{{workflow.name}}",
            "content": "Run {{workflow_run.run_number}} of {{workflow_run.head_branch}} \
                is {{workflow_run.status}}, {{sender.login}}.",
        }),
        outcome: |payload| {
            let run = &payload["workflow_run"];
            if run["conclusion"] != Value::Null {
                return None;
            }
            let content = format!(
                "Run {} of {} is {}, {}.",
                run["run_number"],
                text(run, "head_branch"),
                text(run, "status"),
                text(payload, "sender.login"),
            );
            let to = text(run, "head_commit.author.email");
            Some(sent(
                "email",
                to,
                Some(text(payload, "workflow.name")),
                content,
            ))
        },
        counts: (7, 0),
    }
}

/// A rule without conditions, and a variable that is null in one payload: that one fails, named.
fn starred() -> Case {
    Case {
        name: "starred",
        event: "star",
        rule: json!({ "recipient": "{{repository.owner.login}}" }),
        template: json!({
            "channel": "push",
            "content": "{{sender.login}} starred {{repository.full_name}} at {{starred_at}}",
        }),
        outcome: |payload| {
            let Some(at) = payload["starred_at"].as_str() else {
                return Some(Outcome::Failed("missing_variable"));
            };
            let (who, what) = (
                text(payload, "sender.login"),
                text(payload, "repository.full_name"),
            );
            let to = text(payload, "repository.owner.login");
            Some(sent(
                "push",
                to,
                None,
                format!("{who} starred {what} at {at}"),
            ))
        },
        counts: (7, 1),
    }
}

/// A rule for every event. Where there is no sender there is nobody to tell.
fn outside_of_a_repository() -> Case {
    Case {
        name: "outside of a repository",
        event: "",
        rule: json!({ "when": "!has(payload.repository)", "recipient": "{{sender.login}}" }),
        template: json!({
            "channel": "push",
            "content": "{{sender.type}} {{sender.id}}, {{if sender.site_admin}}admin{{else}}no admin{{endif}}",
        }),
        outcome: |payload| {
            let sender = payload["sender"].as_object()?;
            if payload.get("repository").is_some() {
                return None;
            }
            let admin = if sender["site_admin"] == true {
                "admin"
            } else {
                "no admin"
            };
            let content = format!("{} {}, {admin}", text(payload, "sender.type"), sender["id"]);
            Some(sent("push", text(payload, "sender.login"), None, content))
        },
        counts: (110, 0),
    }
}
