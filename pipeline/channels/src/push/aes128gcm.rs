//! What a push service cannot read: a message encrypted for one browser (RFC 8291, in the coding
//! `aes128gcm` of RFC 8188).
//!
//! By OpenSSL, which is there anyway: the crates for it bring other versions of what we have.

use openssl::{
    bn::BigNumContext,
    derive::Deriver,
    ec::{EcKey, EcPoint},
    error::ErrorStack,
    md::Md,
    pkey::{Id, PKey, Private, Public},
    pkey_ctx::PkeyCtx,
    rand::rand_bytes,
    symm::{Cipher, encrypt_aead},
};

use super::vapid::{p256, point_bytes};

/// The size of the one record that a message is.
const RECORD_BYTES: u32 = 4_096;
const SALT_BYTES: usize = 16;
const POINT_BYTES: usize = 65;
const SECRET_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = SALT_BYTES + 4 + 1 + POINT_BYTES;
/// The end of the last record.
const LAST: u8 = 2;

/// The longest plaintext: what comes of it is no longer than every push service must take.
pub(super) const PLAINTEXT_LIMIT: usize = RECORD_BYTES as usize - HEADER_BYTES - TAG_BYTES - 1;

/// A browser that can read what is encrypted for it.
pub(super) struct Receiver {
    key: PKey<Public>,
    public: Vec<u8>,
    secret: Vec<u8>,
}

impl Receiver {
    /// `p256dh` and `auth` of a subscription; none where they are not what they should be.
    pub(super) fn new(public: Vec<u8>, secret: Vec<u8>) -> Option<Self> {
        if public.len() != POINT_BYTES || secret.len() != SECRET_BYTES {
            return None;
        }
        let key = public_key(&public).ok()?;
        Some(Self {
            key,
            public,
            secret,
        })
    }
}

fn public_key(bytes: &[u8]) -> Result<PKey<Public>, ErrorStack> {
    let group = p256()?;
    let mut context = BigNumContext::new()?;
    let point = EcPoint::from_bytes(&group, bytes, &mut context)?;
    let key = EcKey::from_public_key(&group, &point)?;
    key.check_key()?;
    PKey::from_ec_key(key)
}

/// Encrypts for a receiver, with a key and a salt of this message's own.
pub(super) fn encrypt(plaintext: &[u8], receiver: &Receiver) -> Result<Vec<u8>, ErrorStack> {
    let group = p256()?;
    let sender = EcKey::generate(&group)?;
    let mut salt = [0; SALT_BYTES];
    rand_bytes(&mut salt)?;
    encrypt_with(plaintext, receiver, sender, &salt)
}

fn encrypt_with(
    plaintext: &[u8],
    receiver: &Receiver,
    sender: EcKey<Private>,
    salt: &[u8; SALT_BYTES],
) -> Result<Vec<u8>, ErrorStack> {
    let sender_public = point_bytes(sender.group(), sender.public_key())?;
    let sender = PKey::from_ec_key(sender)?;
    let mut agreement = Deriver::new(&sender)?;
    agreement.set_peer(&receiver.key)?;
    let shared = agreement.derive_to_vec()?;

    let info = [b"WebPush: info\0", &receiver.public[..], &sender_public].concat();
    let input: [u8; 32] = derived(&receiver.secret, &shared, &info)?;
    let key: [u8; 16] = derived(salt, &input, b"Content-Encoding: aes128gcm\0")?;
    let nonce: [u8; 12] = derived(salt, &input, b"Content-Encoding: nonce\0")?;

    let mut tag = [0; TAG_BYTES];
    let record = [plaintext, &[LAST]].concat();
    let cipher = Cipher::aes_128_gcm();
    let encrypted = encrypt_aead(cipher, &key, Some(&nonce), &[], &record, &mut tag)?;
    Ok([
        &salt[..],
        &RECORD_BYTES.to_be_bytes(),
        &[POINT_BYTES as u8],
        &sender_public,
        &encrypted,
        &tag,
    ]
    .concat())
}

/// HKDF with SHA-256 (RFC 5869).
fn derived<const N: usize>(salt: &[u8], input: &[u8], info: &[u8]) -> Result<[u8; N], ErrorStack> {
    let mut context = PkeyCtx::new_id(Id::HKDF)?;
    context.derive_init()?;
    context.set_hkdf_md(Md::sha256())?;
    context.set_hkdf_salt(salt)?;
    context.set_hkdf_key(input)?;
    context.add_hkdf_info(info)?;
    let mut output = [0; N];
    context.derive(Some(&mut output))?;
    Ok(output)
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::{
        super::vapid::{BASE64, key_of},
        *,
    };

    fn bytes(text: &str) -> Vec<u8> {
        BASE64.decode(text).unwrap()
    }

    /// The example of RFC 8291, section 5, whose keys its appendix A has.
    #[test]
    fn the_example_of_the_rfc_comes_out_as_it_is_there() {
        let receiver = Receiver::new(
            bytes(
                "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNto\
                 IAiw4",
            ),
            bytes("BTBZMqHH6r4Tts7J_aSIgg"),
        );
        let sender = key_of(&bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")).unwrap();
        let salt = bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap();
        let plaintext = b"When I grow up, I want to be a watermelon";
        let body = encrypt_with(plaintext, &receiver.unwrap(), sender, &salt).unwrap();
        assert_eq!(
            BASE64.encode(body),
            "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocIn\
             mYWAmS6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNW\
             QexSgSxsj_Qulcy4a-fN"
        );
    }

    #[test]
    fn the_longest_plaintext_makes_the_longest_body_that_every_push_service_takes() {
        let key = EcKey::generate(&p256().unwrap()).unwrap();
        let public = point_bytes(key.group(), key.public_key()).unwrap();
        let receiver = Receiver::new(public, vec![7; SECRET_BYTES]).unwrap();
        let body = encrypt(&[b'x'; PLAINTEXT_LIMIT], &receiver).unwrap();
        assert_eq!(body.len(), 4_096);
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let key = EcKey::generate(&p256().unwrap()).unwrap();
        let public = point_bytes(key.group(), key.public_key()).unwrap();
        let mut beside_the_curve = public.clone();
        beside_the_curve[64] ^= 1;
        for (public, secret) in [
            (beside_the_curve, vec![7; 16]),
            (public[..64].to_vec(), vec![7; 16]),
            (vec![0; 65], vec![7; 16]),
            (public, vec![7; 15]),
        ] {
            assert!(Receiver::new(public, secret).is_none());
        }
    }
}
