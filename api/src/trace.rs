//! What ties a request to others: its correlation id and its W3C trace context.

use poem::Request;
use uuid::Uuid;

/// The longest correlation id.
const MAX_CORRELATION_ID: usize = 128;

/// What ties a request to others.
pub(crate) struct Trace {
    pub(crate) correlation_id: String,
    pub(crate) traceparent: String,
}

impl Trace {
    /// The request's own, or new ones.
    pub(crate) fn of(request: &Request) -> Self {
        let header = |name: &str| request.headers().get(name)?.to_str().ok();
        let correlation_id = header("x-correlation-id")
            .filter(|id| !id.is_empty() && !id.contains(char::is_control))
            .filter(|id| id.len() <= MAX_CORRELATION_ID)
            .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
        let traceparent = header("traceparent")
            .filter(|text| is_traceparent(text))
            .map_or_else(new_traceparent, str::to_owned);
        Self {
            correlation_id,
            traceparent,
        }
    }

    /// The trace id and the span id of a `traceparent`.
    pub(crate) fn read(traceparent: &str) -> Option<(String, String)> {
        let mut parts = traceparent.split('-').skip(1).map(str::to_owned);
        Some((parts.next()?, parts.next()?))
    }
}

/// W3C Trace Context, section 3.2.2: version 00.
fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str| {
        part.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else {
        return false;
    };
    *version == "00"
        && [trace.len(), span.len(), flags.len()] == [32, 16, 2]
        && hex(trace)
        && hex(span)
        && hex(flags)
        && trace.bytes().any(|b| b != b'0')
        && span.bytes().any(|b| b != b'0')
}

fn new_traceparent() -> String {
    let trace = Uuid::now_v7().simple();
    // A version 7 id starts with the time: its second half is the random one.
    let (_, span) = Uuid::now_v7().as_u64_pair();
    format!("00-{trace}-{span:016x}-01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_trace_context_is_taken_on() {
        assert!(is_traceparent(
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        assert!(is_traceparent(&new_traceparent()));
        for wrong in [
            "",
            "00-x-y-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_correlation_id_is_taken_or_made() {
        let of = |id: &str| {
            let request = Request::builder().header("x-correlation-id", id).finish();
            Trace::of(&request).correlation_id
        };
        assert_eq!(of("demo-123"), "demo-123");
        for wrong in ["", "a\tb", &"x".repeat(129)] {
            assert_eq!(of(wrong).len(), 36, "{wrong:?}");
        }
    }
}
