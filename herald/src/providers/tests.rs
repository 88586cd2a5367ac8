use super::*;

fn names(file: &str, channel: Channel) -> Vec<String> {
    let providers = providers(&Config::from_text(file).unwrap()).unwrap();
    let of_channel = providers.of(channel);
    let names = of_channel.iter().map(|provider| provider.name().to_owned());
    names.collect()
}

fn error(file: &str) -> String {
    let config = Config::from_text(file).unwrap();
    format!("{:#}", providers(&config).err().unwrap())
}

const WEBHOOKS: &str = "[provider]\nurl = \"http://a/\"\nfallback_url = \"http://b/\"\n";

#[test]
fn what_is_not_said_is_the_provider_webhooks_or_the_logs() {
    assert_eq!(names("", Channel::Sms), ["log"]);
    assert_eq!(names(WEBHOOKS, Channel::Sms), ["primary", "fallback"]);
    assert_eq!(names(WEBHOOKS, Channel::Log), ["log"]);
}

#[test]
fn who_carries_what_is_said_in_a_line() {
    let file = format!("{WEBHOOKS}[channels]\npush = \"log\"\n");
    let providers = providers(&Config::from_text(&file).unwrap()).unwrap();
    assert_eq!(
        described(&providers),
        "sms, email, slack, webhook by primary, then fallback; push, log by log"
    );
}

#[test]
fn a_fallback_comes_after_the_providers_own() {
    let file = format!("{WEBHOOKS}[channels]\nsms_fallback = \"log\"\nemail = \"log\"\n");
    assert_eq!(names(&file, Channel::Sms), ["primary", "fallback", "log"]);
    assert_eq!(names(&file, Channel::Email), ["log"]);
    let file = format!("{WEBHOOKS}[channels]\nsms = \"log\"\nsms_fallback = \"provider\"\n");
    assert_eq!(names(&file, Channel::Sms), ["log", "primary", "fallback"]);
}

#[test]
fn what_has_all_that_it_needs_is_made() {
    let twilio = "[twilio]\naccount_sid = \"AC1\"\nauth_token = \"t\"\nfrom = \"+1\"\n";
    let vonage = "[vonage]\napi_key = \"k\"\napi_secret = \"s\"\nfrom = \"Herald\"\n";
    let channels = "[channels]\nsms = \"twilio\"\nsms_fallback = \"vonage\"\n";
    let file = format!("{channels}{twilio}{vonage}");
    assert_eq!(names(&file, Channel::Sms), ["twilio", "vonage"]);

    let key = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw";
    let web_push = format!("[web_push]\nprivate_key = \"{key}\"\nsubject = \"mailto:a@b\"\n");
    let file = format!("[channels]\npush = \"web_push\"\n{web_push}");
    assert_eq!(names(&file, Channel::Push), ["web_push"]);

    let slack = "slack_bot+slack_webhook";
    let file = format!("[channels]\nslack = {slack:?}\n[slack]\nbot_token = \"xoxb\"\n");
    assert_eq!(names(&file, Channel::Slack), [slack]);
}

#[test]
fn each_who_carries_email_needs_a_sender_and_what_is_its_own() {
    let email = "[email]\nfrom = \"Herald <herald@example.com>\"\n";
    let smtp = "[smtp]\nhost = \"mail.example.com\"\nuser = \"u\"\npassword = \"p\"\n";
    let mailgun = "[mailgun]\ndomain = \"mg.example.com\"\napi_key = \"k\"\n";
    let ses = "[ses]\nregion = \"eu-central-1\"\naccess_key_id = \"AK\"\n\
               secret_access_key = \"s\"\n";
    for (primary, fallback) in [("smtp", "mailgun"), ("mailgun", "ses"), ("ses", "smtp")] {
        let chosen = format!("email = {primary:?}\nemail_fallback = {fallback:?}");
        let file = format!("[channels]\n{chosen}\n{email}{smtp}{mailgun}{ses}");
        assert_eq!(names(&file, Channel::Email), [primary, fallback]);
    }
    for (file, expected) in [
        ("email = \"smtp\"", "host in [smtp] is not set"),
        (
            "email = \"smtp\"\n[smtp]\nhost = \"h\"",
            "from in [email] is not set",
        ),
        (
            "email = \"smtp\"\n[smtp]\nhost = \"h\"\nuser = \"u\"",
            "password in [smtp] is not set",
        ),
        (
            "email = \"smtp\"\n[smtp]\nhost = \"h\"\n[email]\nfrom = \"herald\"",
            "[email]: from is \"herald\", expected",
        ),
        (
            "email = \"smtp\"\n[smtp]\ntls_ca = \"/no/such\"",
            "tls_ca in [smtp]: /no/such",
        ),
        ("email = \"mailgun\"", "domain in [mailgun] is not set"),
        ("email = \"ses\"", "region in [ses] is not set"),
        (
            "email = \"ses\"\n[ses]\nregion = \"x\"\naccess_key_id = \"AK\"",
            "secret_access_key in [ses] is not set",
        ),
    ] {
        let error = error(&format!("[channels]\n{file}\n"));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn webhooks_need_a_secret_and_networks_are_networks() {
    let channels = "[channels]\nwebhook = \"standard_webhooks\"\n";
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let with = |rest: &str| format!("{channels}[webhook]\n{rest}\n");
    let file = with(&format!("secrets = [{secret:?}]"));
    assert_eq!(names(&file, Channel::Webhook), ["standard_webhooks"]);
    for (file, expected) in [
        (with(""), "secrets in [webhook] is not set".to_owned()),
        (
            with(&format!("secrets = [{secret:?}, \"hunter2\"]")),
            "secrets in [webhook]: a secret is not whsec_".to_owned(),
        ),
        (
            with(&format!(
                "secrets = [{secret:?}]\nallow_cidrs = [\"intern\"]"
            )),
            "allow_cidrs in [webhook]: \"intern\" is no network".to_owned(),
        ),
    ] {
        let error = error(&file);
        assert!(error.contains(&expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn what_cannot_be_made_is_named_with_what_is_missing() {
    for (file, expected) in [
        (
            "[channels]\nsms = \"provider\"\n",
            "sms in [channels] is \"provider\": url in [provider] is not set",
        ),
        (
            "[channels]\nemail_fallback = \"pigeon\"\n",
            "email_fallback in [channels] is \"pigeon\": expected one of ",
        ),
        (
            "[channels]\nsms_fallback = \"log\"\n",
            "sms and sms_fallback in [channels] are both \"log\"",
        ),
        (
            "[channels]\nemail = \"twilio\"\n",
            "email in [channels] is \"twilio\": expected one of ",
        ),
        (
            "[channels]\nsms = \"twilio\"\n",
            "sms in [channels] is \"twilio\": auth_token in [twilio] is not set",
        ),
        (
            "[channels]\nsms = \"twilio\"\n[twilio]\nauth_token = \"hunter2\"\n",
            "from in [twilio] is not set",
        ),
        (
            "[channels]\nsms = \"twilio\"\n[twilio]\napi_key = \"SK1\"\nfrom = \"x\"\n",
            "api_key_secret in [twilio] is not set",
        ),
        (
            "[channels]\nsms_fallback = \"vonage\"\n",
            "sms_fallback in [channels] is \"vonage\": api_key in [vonage] is not set",
        ),
        (
            "[channels]\npush = \"fcm\"\n",
            "push in [channels] is \"fcm\": service_account in [fcm] is not set",
        ),
        (
            "[channels]\npush = \"fcm\"\n[fcm]\nservice_account = \"hunter2\"\n",
            "service_account in [fcm] is no service account's JSON",
        ),
        (
            "[channels]\npush = \"web_push\"\n",
            "private_key in [web_push] is not set",
        ),
        (
            "[channels]\npush = \"web_push\"\n[web_push]\nprivate_key = \"hunter2\"\n",
            "subject in [web_push] is not set",
        ),
        (
            "[channels]\npush = \"web_push\"\n[web_push]\nprivate_key = \"hunter2\"\n\
             subject = \"mailto:a@example.com\"\n",
            "[web_push]: private_key is no P-256 key",
        ),
        (
            "[channels]\npush = \"fcm+pigeon\"\n",
            "push in [channels] is \"fcm+pigeon\": expected one of fcm, web_push, provider, log",
        ),
        (
            "[channels]\nslack = \"slack_bot\"\nslack_fallback = \"slack_webhook\"\n\
             [slack]\nbot_token = \"xoxb\"\n",
            "for all of them, slack = \"slack_bot+slack_webhook\"",
        ),
        (
            "[channels]\nslack = \"slack_bot\"\n",
            "bot_token in [slack] is not set",
        ),
        (
            "[channels]\nslack = \"slack_webhook\"\n[slack]\n\
             default_webhook = \"hooks.slack.com/hunter2\"\n",
            "default_webhook in [slack]: ",
        ),
        (
            "[channels]\nslack = \"slack_webhook\"\n[slack]\nwebhooks = [\"slack.com\"]\n",
            "webhooks in [slack]: \"slack.com\" is no base",
        ),
        (
            "[provider]\nurl = \"localhost:1/hunter2\"\n",
            "url in [provider]: expected http://… or https://…",
        ),
    ] {
        let error = error(file);
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}
