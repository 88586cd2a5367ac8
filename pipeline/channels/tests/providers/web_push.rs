//! Web Push, read as a browser and a push service would.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use herald_channels::{
    Call, Provider, Secret,
    allowed::Allowed,
    http,
    push::{
        vapid::Vapid,
        web_push::{Settings, WebPush},
    },
};
use herald_schemas::words::{Channel, Priority};
use openssl::{
    bn::{BigNum, BigNumContext},
    derive::Deriver,
    ec::{EcGroup, EcKey, EcPoint, PointConversionForm},
    ecdsa::EcdsaSig,
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private, Public},
    sha::sha256,
    sign::Signer,
    symm::{Cipher, decrypt_aead},
};
use serde_json::{Value, json};

use crate::{
    Answer, Case, Request, Server, accepted, call, deadlines, delivery, each_is_told, refusal,
    says_whose_it_is,
};

const AUTH: [u8; 16] = *b"sixteen of bytes";
const SUBJECT: &str = "mailto:ops@example.com";

fn p256() -> EcGroup {
    EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap()
}

fn public_bytes(key: &EcKey<Private>) -> Vec<u8> {
    let mut context = BigNumContext::new().unwrap();
    let form = PointConversionForm::UNCOMPRESSED;
    key.public_key()
        .to_bytes(key.group(), form, &mut context)
        .unwrap()
}

fn key_of(public: &[u8]) -> EcKey<Public> {
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&p256(), public, &mut context).unwrap();
    EcKey::from_public_key(&p256(), &point).unwrap()
}

/// A browser, with what it gave the page.
struct Browser {
    key: EcKey<Private>,
    subscription: String,
}

impl Browser {
    fn at(endpoint: &str) -> Self {
        let key = EcKey::generate(&p256()).unwrap();
        let subscription = json!({
            "endpoint": endpoint, "expirationTime": null,
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode(public_bytes(&key)),
                "auth": URL_SAFE_NO_PAD.encode(AUTH),
            },
        })
        .to_string();
        Self { key, subscription }
    }

    /// RFC 8291 and 8188, from the receiver's side, with HKDF written out as the RFC does.
    fn read(&self, body: &[u8]) -> Vec<u8> {
        let (salt, rest) = body.split_at(16);
        let (size, rest) = rest.split_at(4);
        let size = u32::from_be_bytes(size.try_into().unwrap()) as usize;
        assert_eq!(rest[0], 65);
        let (sender, record) = rest[1..].split_at(65);
        assert!(record.len() <= size, "one record");

        let own = PKey::from_ec_key(self.key.clone()).unwrap();
        let peer = PKey::from_ec_key(key_of(sender)).unwrap();
        let mut agreement = Deriver::new(&own).unwrap();
        agreement.set_peer(&peer).unwrap();
        let shared = agreement.derive_to_vec().unwrap();
        let info = [
            b"WebPush: info\0",
            &public_bytes(&self.key)[..],
            sender,
            &[1],
        ]
        .concat();
        let input = hmac(&hmac(&AUTH, &shared), &info);
        let random = hmac(salt, &input);
        let key = hmac(&random, b"Content-Encoding: aes128gcm\0\x01");
        let nonce = hmac(&random, b"Content-Encoding: nonce\0\x01");
        let (text, tag) = record.split_at(record.len() - 16);
        let cipher = Cipher::aes_128_gcm();
        let mut plain =
            decrypt_aead(cipher, &key[..16], Some(&nonce[..12]), &[], text, tag).unwrap();
        assert_eq!(plain.pop(), Some(2), "the last record");
        plain
    }
}

fn hmac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let key = PKey::hmac(key).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    signer.sign_oneshot_to_vec(data).unwrap()
}

/// As RFC 8292 has it checked; what the token says, and whose it is.
fn claims_of(authorization: &str) -> (Value, String) {
    let parts = authorization.strip_prefix("vapid t=").unwrap();
    let (token, key) = parts.split_once(", k=").unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    assert_eq!(signature.len(), 64);
    let number = |bytes: &[u8]| BigNum::from_slice(bytes).unwrap();
    let signature =
        EcdsaSig::from_private_components(number(&signature[..32]), number(&signature[32..]));
    let public = key_of(&URL_SAFE_NO_PAD.decode(key).unwrap());
    let hash = sha256(signed.as_bytes());
    assert!(signature.unwrap().verify(&hash, &public).unwrap());
    let part = |text: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    };
    let (header, claims) = signed.split_once('.').unwrap();
    assert_eq!(part(header), json!({ "typ": "JWT", "alg": "ES256" }));
    (part(claims), key.to_owned())
}

fn web_push(key: &EcKey<Private>, allowed: &str) -> WebPush {
    let private = key.private_key().to_vec_padded(32).unwrap();
    let private = Secret::new(URL_SAFE_NO_PAD.encode(private));
    let settings = Settings {
        vapid: Vapid::new(&private, SUBJECT).unwrap(),
        time_to_live: Duration::from_secs(3_600),
        allowed: Allowed::new(&[allowed.to_owned()]).unwrap(),
    };
    WebPush::new(settings, http::client(deadlines()).unwrap())
}

fn created() -> Answer {
    Answer::new(201, "").header(
        "Location",
        "https://push.example.net/message/qDIYHNcfAIPP_5ITv",
    )
}

/// A push service, a browser that has subscribed there, and a sender.
async fn subscribed() -> (Server, Browser, WebPush, EcKey<Private>) {
    let server = Server::answering(created()).await;
    let browser = Browser::at(&format!(
        "{}/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV",
        server.url()
    ));
    let key = EcKey::generate(&p256()).unwrap();
    let web_push = web_push(&key, server.url());
    (server, browser, web_push, key)
}

fn message(browser: &Browser) -> Call {
    call(delivery(
        Channel::Push,
        &browser.subscription,
        "Your order is here ☕",
    ))
}

fn seconds(request: &Request, name: &str) -> u64 {
    request.header(name).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_browser_reads_what_was_sent_and_the_push_service_by_whom() {
    let (server, browser, web_push, key) = subscribed().await;
    let reply = web_push.send(&message(&browser)).await;
    let id = "https://push.example.net/message/qDIYHNcfAIPP_5ITv";
    assert_eq!(reply.outcome, accepted(Some(id)));

    let request = server.request();
    let line = "POST /push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV HTTP/1.1";
    assert_eq!(request.line, line);
    assert_eq!(request.header("content-encoding"), Some("aes128gcm"));
    assert_eq!(request.header("ttl"), Some("3600"));
    assert_eq!(request.header("urgency"), Some("normal"));
    assert_eq!(request.header("topic").map(str::len), Some(32));
    says_whose_it_is(&request);

    let plain: Value = serde_json::from_slice(&browser.read(&request.body)).unwrap();
    let expected = json!({
        "id": message(&browser).delivery.identity.id, "title": "Hi",
        "body": "Your order is here ☕",
        "data": { "order": 17, "link": "app://orders/17", "from": "x" },
    });
    assert_eq!(plain, expected);

    let (claims, public) = claims_of(request.header("authorization").unwrap());
    assert_eq!(public, URL_SAFE_NO_PAD.encode(public_bytes(&key)));
    assert_eq!(claims["aud"], server.url());
    assert_eq!(claims["sub"], SUBJECT);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let life = claims["exp"].as_u64().unwrap() - now;
    assert!(life <= 24 * 3_600, "{life}");
}

/// The check that our tokens pass is the one of RFC 8292: its example, section 2.4, passes it.
#[test]
fn the_example_of_the_rfc_passes_the_same_check() {
    let (claims, _) = claims_of(
        "vapid t=eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQi\
         LCJleHAiOjE0NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOep\
         C9GAu_HLGkMlMuCGSK2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA, k=BA1Hxzyi1RUM1b5wjxsn\
         7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs",
    );
    let expected = json!({
        "aud": "https://push.example.net", "exp": 1_453_523_768, "sub": "mailto:push@example.com",
    });
    assert_eq!(claims, expected);
}

#[tokio::test]
async fn a_message_comes_again_under_its_topic_and_with_keys_of_its_own() {
    let (server, browser, web_push, _) = subscribed().await;
    for _ in 0..2 {
        web_push.send(&message(&browser)).await;
    }
    let [first, second] = server.requests().try_into().unwrap();
    assert_eq!(first.header("topic"), second.header("topic"));
    assert_ne!(first.body[..16], second.body[..16], "its salt");
    assert_ne!(first.body[21..86], second.body[21..86], "its key");
    assert_eq!(browser.read(&first.body), browser.read(&second.body));
}

#[tokio::test]
async fn what_expires_before_is_kept_no_longer() {
    let (server, browser, web_push, _) = subscribed().await;
    let mut delivery = delivery(Channel::Push, &browser.subscription, "x");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    delivery.identity.expires_at = Some((now + Duration::from_secs(60)).as_millis() as i64);
    delivery.identity.priority = Priority::High;
    web_push.send(&call(delivery)).await;
    let request = server.request();
    assert!((50..=60).contains(&seconds(&request, "ttl")));
    assert_eq!(request.header("urgency"), Some("high"));
}

#[tokio::test]
async fn each_error_is_told_and_may_pass_or_not() {
    let (server, browser, web_push, _) = subscribed().await;
    let permanent = "permanent";
    let cases: [Case; 11] = [
        (Answer::new(400, ""), permanent, "http_400", None),
        (
            Answer::new(401, ""),
            permanent,
            "web_push_unauthorized",
            None,
        ),
        (
            Answer::new(403, ""),
            permanent,
            "web_push_unauthorized",
            None,
        ),
        (
            Answer::new(404, ""),
            permanent,
            "web_push_subscription_gone",
            None,
        ),
        (
            Answer::new(410, r#"{"code":410,"errno":106}"#),
            permanent,
            "web_push_subscription_gone",
            None,
        ),
        (Answer::new(413, ""), permanent, "web_push_too_large", None),
        (
            Answer::new(429, ""),
            "transient",
            "web_push_throttled",
            None,
        ),
        (
            Answer::new(429, "").header("Retry-After", "120"),
            "transient",
            "web_push_throttled",
            Some(120),
        ),
        (Answer::new(500, ""), "transient", "http_500", None),
        (
            Answer::new(503, "").header("Retry-After", "7"),
            "transient",
            "http_503",
            Some(7),
        ),
        (
            Answer::new(307, "").header("Location", "http://127.0.0.1:1/"),
            permanent,
            "http_307",
            None,
        ),
    ];
    each_is_told(&server, &web_push, &message(&browser), cases).await;
}

#[tokio::test]
async fn what_is_no_subscription_of_a_known_push_service_is_refused_without_a_call() {
    let (server, browser, web_push, _) = subscribed().await;
    let elsewhere = Browser::at("http://169.254.169.254/latest");
    let with_key = |p256dh: &str| {
        let mut subscription: Value = serde_json::from_str(&browser.subscription).unwrap();
        subscription["keys"]["p256dh"] = json!(p256dh);
        subscription.to_string()
    };
    for (recipient, code) in [
        (elsewhere.subscription, "recipient_not_allowed"),
        ("dXyz:APA91b-token".to_owned(), "recipient_not_supported"),
        (r#"{"endpoint":"x"}"#.to_owned(), "recipient_not_supported"),
        (with_key("AAAA"), "recipient_not_supported"),
        (with_key("not base64!"), "recipient_not_supported"),
    ] {
        let reply = web_push
            .send(&call(delivery(Channel::Push, &recipient, "x")))
            .await;
        let expected = ("permanent".to_owned(), code.to_owned(), None);
        assert_eq!(refusal(&reply), expected, "{recipient}");
    }
    let long = call(delivery(
        Channel::Push,
        &browser.subscription,
        &"x".repeat(4_000),
    ));
    assert_eq!(refusal(&web_push.send(&long).await).1, "content_too_long");
    assert!(server.requests().is_empty());
}

#[test]
fn a_key_is_taken_as_tools_write_it_and_told_without_a_word_of_it_where_it_is_none() {
    let key = EcKey::generate(&p256()).unwrap();
    let pem = PKey::from_ec_key(key).unwrap().private_key_to_pem_pkcs8();
    let pem = Secret::new(String::from_utf8(pem.unwrap()).unwrap());
    assert!(Vapid::new(&pem, "https://example.com/contact").is_ok());
    assert!(Vapid::new(&pem, "ops@example.com").is_err());
    for key in ["hunter2", "", "AAAA", &"A".repeat(43)] {
        let wrong = Vapid::new(&Secret::new(key), SUBJECT).err().unwrap();
        assert!(
            wrong.contains("private_key") && !wrong.contains("hunter2"),
            "{wrong}"
        );
    }
    let other = EcGroup::from_curve_name(Nid::SECP384R1).unwrap();
    let other = PKey::from_ec_key(EcKey::generate(&other).unwrap()).unwrap();
    let other = String::from_utf8(other.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(Vapid::new(&Secret::new(other), SUBJECT).is_err());
}
