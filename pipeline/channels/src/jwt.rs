//! JSON Web Tokens, as far as providers want them: signed by a key of ours, never read.
//!
//! By OpenSSL, which is there anyway: the crates for it bring a second cryptographic library.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use openssl::{
    ecdsa::EcdsaSig,
    error::ErrorStack,
    hash::MessageDigest,
    pkey::{Id, PKey, Private},
    sign::Signer,
};
use serde_json::Value;

/// The width of each of the two numbers of a P-256 signature.
const P256_BYTES: i32 = 32;

/// Signs `claims`: by RS256 with an RSA key, by ES256 with one on P-256.
pub(crate) fn sign(
    header: &Value,
    claims: &Value,
    key: &PKey<Private>,
) -> Result<String, ErrorStack> {
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let signed = format!("{header}.{claims}");
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = signer.sign_oneshot_to_vec(signed.as_bytes())?;
    let signature = match key.id() {
        Id::EC => side_by_side(&signature)?,
        _ => signature,
    };
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

/// OpenSSL writes the two numbers as ASN.1, a token has them one after the other (RFC 7518).
fn side_by_side(asn1: &[u8]) -> Result<Vec<u8>, ErrorStack> {
    let signature = EcdsaSig::from_der(asn1)?;
    let mut bytes = signature.r().to_vec_padded(P256_BYTES)?;
    bytes.extend(signature.s().to_vec_padded(P256_BYTES)?);
    Ok(bytes)
}
