//! The retry policy that the settings describe.

use anyhow::{Context, Result, bail};
use herald_stages::retry::{Backoff, Ladder, Policy, Tier};

use crate::config::{Retry, RetryPolicy, Span};

/// The attempts of an exponential policy that names none.
const EXPONENTIAL_ATTEMPTS: u32 = 5;

/// The policy of `[retry]`.
pub(crate) fn policy(retry: &Retry) -> Result<Policy> {
    let tiers = retry
        .delays
        .iter()
        .map(|text| tier(text))
        .collect::<Result<Vec<_>>>();
    let ladder = tiers
        .and_then(|tiers| Ladder::new(tiers).map_err(Into::into))
        .context("delays in [retry]")?;
    let (backoff, attempts) = match retry.policy {
        RetryPolicy::Delays => (Backoff::Ladder, retry.delays.len() as u32 + 1),
        RetryPolicy::Exponential => {
            let (base, cap) = (retry.base.0, retry.cap.0);
            if base > cap {
                bail!("base in [retry] is longer than cap");
            }
            let jitter_percent = retry.jitter_percent;
            (
                Backoff::Exponential {
                    base,
                    cap,
                    jitter_percent,
                },
                EXPONENTIAL_ATTEMPTS,
            )
        }
    };
    let attempts = if retry.max_attempts == 0 {
        attempts
    } else {
        retry.max_attempts
    };
    Ok(Policy::new(ladder, backoff, attempts))
}

/// A rung; its text is the end of its topic's name.
fn tier(text: &str) -> Result<Tier> {
    let Span(delay) = text
        .parse()
        .map_err(|error: String| anyhow::anyhow!(error))?;
    Ok(Tier {
        name: text.to_owned(),
        delay,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn policy_of(file: &str) -> Result<Policy> {
        policy(&Config::from_text(file).unwrap().retry)
    }

    #[test]
    fn the_default_is_the_first_seeds() {
        let policy = policy_of("").unwrap();
        let rungs: Vec<u64> = policy
            .ladder()
            .tiers()
            .iter()
            .map(|tier| tier.delay.as_secs())
            .collect();
        assert_eq!(rungs, [60, 300, 900]);
        assert!(policy.next(3, None, 0).is_some());
        assert!(
            policy.next(4, None, 0).is_none(),
            "one more than the delays"
        );
    }

    #[test]
    fn an_exponential_one_has_the_second_seeds_attempts() {
        let policy = policy_of("[retry]\npolicy = \"exponential\"\n").unwrap();
        assert!(policy.next(4, None, 0).is_some());
        assert!(policy.next(5, None, 0).is_none());
    }

    #[test]
    fn what_is_no_ladder_is_said() {
        for (file, expected) in [
            ("delays = []", "at least one"),
            ("delays = [\"5m\", \"1m\"]", "1m is not longer"),
            ("delays = [\"soon\"]", "\"soon\" is no time"),
            ("policy = \"exponential\"\nbase = \"1h\"", "longer than cap"),
        ] {
            let error = policy_of(&format!("[retry]\n{file}\n")).unwrap_err();
            assert!(format!("{error:#}").contains(expected), "{error:#}");
        }
    }
}
