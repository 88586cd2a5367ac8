//! Who sends to a push service: VAPID (RFC 8292).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use openssl::{
    bn::{BigNum, BigNumContext},
    ec::{EcGroup, EcGroupRef, EcKey, EcPoint, EcPointRef, PointConversionForm},
    error::ErrorStack,
    nid::Nid,
    pkey::{PKey, Private},
};
use reqwest::Url;
use serde_json::json;

use crate::{Secret, jwt};

/// How long a token is good for; a push service takes no more than a day.
const LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Base64 as browsers and tools write it, with its padding or without.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The curve of Web Push.
pub(super) fn p256() -> Result<EcGroup, ErrorStack> {
    EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)
}

/// A point as its 65 bytes.
pub(super) fn point_bytes(group: &EcGroupRef, point: &EcPointRef) -> Result<Vec<u8>, ErrorStack> {
    let mut context = BigNumContext::new()?;
    point.to_bytes(group, PointConversionForm::UNCOMPRESSED, &mut context)
}

/// The sender's key, and how to reach whoever runs it.
pub struct Vapid {
    key: PKey<Private>,
    /// As browsers are given it.
    public: String,
    subject: String,
}

impl Vapid {
    /// The key is the 32 bytes in base64 that the usual tools make, or PEM. An error repeats nothing
    /// of it.
    pub fn new(key: &Secret, subject: &str) -> Result<Self, &'static str> {
        if !subject.starts_with("mailto:") && !subject.starts_with("https:") {
            return Err("subject is neither mailto: nor https:");
        }
        let wrong = "private_key is no P-256 key, in base64 (32 bytes) or PEM";
        let key = read_key(key.reveal().trim()).ok().flatten().ok_or(wrong)?;
        let public = public(&key).map_err(|_| wrong)?;
        Ok(Self {
            key: PKey::from_ec_key(key).map_err(|_| wrong)?,
            public,
            subject: subject.to_owned(),
        })
    }

    /// The `Authorization` for a push service.
    pub(crate) fn authorization(
        &self,
        endpoint: &Url,
        now: SystemTime,
    ) -> Result<String, ErrorStack> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = json!({ "typ": "JWT", "alg": "ES256" });
        let claims = json!({
            "aud": endpoint.origin().ascii_serialization(),
            "exp": (now + LIFE).as_secs(),
            "sub": self.subject,
        });
        let token = jwt::sign(&header, &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", self.public))
    }
}

fn read_key(text: &str) -> Result<Option<EcKey<Private>>, ErrorStack> {
    let key = match text.starts_with("-----BEGIN") {
        true => PKey::private_key_from_pem(text.as_bytes())?.ec_key()?,
        false => match BASE64.decode(text) {
            Ok(bytes) if bytes.len() == 32 => key_of(&bytes)?,
            _ => return Ok(None),
        },
    };
    key.check_key()?;
    let is_p256 = key.group().curve_name() == Some(Nid::X9_62_PRIME256V1);
    Ok(is_p256.then_some(key))
}

/// The key pair of a private number.
pub(super) fn key_of(private: &[u8]) -> Result<EcKey<Private>, ErrorStack> {
    let group = p256()?;
    let number = BigNum::from_slice(private)?;
    let mut context = BigNumContext::new()?;
    let mut point = EcPoint::new(&group)?;
    point.mul_generator2(&group, &number, &mut context)?;
    EcKey::from_private_components(&group, &number, &point)
}

fn public(key: &EcKey<Private>) -> Result<String, ErrorStack> {
    Ok(BASE64.encode(point_bytes(key.group(), key.public_key())?))
}
