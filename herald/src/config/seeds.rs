//! The variables of the two replaced systems that are honoured.

/// How a seed's variable is turned into ours.
pub(super) enum Seed {
    /// As it is.
    Same,
    /// A number of seconds or hours into a time.
    Unit(&'static str),
}

/// The variables of the two replaced systems: name, section, key, and how it is read.
pub(super) const SEEDS: &[(&str, &str, &str, Seed)] = &[
    ("API_KEYS", "api", "keys", Seed::Same),
    (
        "NOTIFICATION_RATE_LIMIT_PER_CLIENT_MINUTE",
        "api",
        "rate_limit_per_minute",
        Seed::Same,
    ),
    (
        "NOTIFICATION_DELIVERY_TTL_HOURS",
        "delivery",
        "time_to_live",
        Seed::Unit("h"),
    ),
    (
        "NOTIFICATION_MAX_ATTEMPTS",
        "retry",
        "max_attempts",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RETRY_BASE_DELAY",
        "retry",
        "base",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_RETRY_MAX_DELAY",
        "retry",
        "cap",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_RETRY_JITTER_PERCENT",
        "retry",
        "jitter_percent",
        Seed::Same,
    ),
    (
        "NOTIFICATION_PROVIDER_WEBHOOK_URL",
        "provider",
        "url",
        Seed::Same,
    ),
    (
        "NOTIFICATION_PROVIDER_FALLBACK_WEBHOOK_URL",
        "provider",
        "fallback_url",
        Seed::Same,
    ),
    (
        "NOTIFICATION_PROVIDER_TIMEOUT",
        "provider",
        "timeout",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_PROVIDER_IDEMPOTENCY_HEADER",
        "provider",
        "idempotency_header",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RATE_LIMIT_PER_SECOND",
        "rate_limits",
        "sms",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RATE_LIMIT_PER_SECOND",
        "rate_limits",
        "email",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RATE_LIMIT_PER_SECOND",
        "rate_limits",
        "push",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RATE_LIMIT_PER_SECOND",
        "rate_limits",
        "slack",
        Seed::Same,
    ),
    (
        "NOTIFICATION_RATE_LIMIT_PER_SECOND",
        "rate_limits",
        "webhook",
        Seed::Same,
    ),
    (
        "NOTIFICATION_CIRCUIT_FAILURE_THRESHOLD",
        "breaker",
        "failures",
        Seed::Same,
    ),
    (
        "NOTIFICATION_CIRCUIT_WINDOW",
        "breaker",
        "window",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_CIRCUIT_OPEN_SECONDS",
        "breaker",
        "open_for",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_CIRCUIT_PROBE_SECONDS",
        "breaker",
        "probe_every",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_PROVIDER_HEALTH_FAILURE_THRESHOLD",
        "failover",
        "failures",
        Seed::Same,
    ),
    (
        "NOTIFICATION_PROVIDER_HEALTH_WINDOW_SECONDS",
        "failover",
        "window",
        Seed::Unit("s"),
    ),
    (
        "NOTIFICATION_PROVIDER_HEALTH_OPEN_SECONDS",
        "failover",
        "unhealthy_for",
        Seed::Unit("s"),
    ),
    (
        "SLACK_DEFAULT_WEBHOOK",
        "slack",
        "default_webhook",
        Seed::Same,
    ),
    ("MAIL_MAILER", "channels", "email", Seed::Same),
    ("MAIL_FROM_ADDRESS", "email", "from", Seed::Same),
    ("MAIL_HOST", "smtp", "host", Seed::Same),
    ("MAIL_PORT", "smtp", "port", Seed::Same),
    ("MAIL_USERNAME", "smtp", "user", Seed::Same),
    ("MAIL_PASSWORD", "smtp", "password", Seed::Same),
    ("NOTIFICATION_SMS_CHAR_LIMIT", "limits", "sms", Seed::Same),
    (
        "NOTIFICATION_EMAIL_CHAR_LIMIT",
        "limits",
        "email",
        Seed::Same,
    ),
    ("NOTIFICATION_PUSH_CHAR_LIMIT", "limits", "push", Seed::Same),
];
