//! What computes: pure functions that neither read nor write nor wait.
//!
//! So they are the same in every way of running the service, and each can be put on a thread, and into a group, of
//! the caller's choice.

use std::fmt;
use std::io::Cursor;
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::{self, PasswordHasher, PasswordVerifier};
use blake2::{Blake2s256, Digest};
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ImageError, ImageReader, Limits};

// ------------------------------------------------------------------------------------------------
// Passwords
// ------------------------------------------------------------------------------------------------

/// The hash of a password with a new salt, in the form that names its parameters.
///
/// Argon2id with 19 MiB of memory, two passes and one lane: what OWASP's Password Storage Cheat Sheet asks for, and
/// the default of `argon2`. It takes that memory while it runs.
///
/// # Panics
///
/// The kernel has no random numbers.
pub fn hash_password(password: &str) -> String {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.expect("the parameters are valid, and the salt is random").to_string()
}

/// Whether a password is the one with this hash. Costs what [`hash_password`] does.
pub fn is_password(password: &str, hash: &str) -> bool {
    let verified: password_hash::Result<()> =
        Argon2::default().verify_password(password.as_bytes(), hash);
    verified.is_ok()
}

// ------------------------------------------------------------------------------------------------
// Images
// ------------------------------------------------------------------------------------------------

/// The widest thumbnail.
pub const WIDEST: u32 = 1024;
/// The largest side of an image that is taken: with four bytes a pixel, 64 MiB at most.
const LARGEST_SIDE: u32 = 4096;
const MOST_MEMORY: u64 = 96 << 20;
const JPEG_QUALITY: u8 = 80;

/// What was sent is not an image that can be read.
#[derive(Debug)]
pub struct NotAnImage(ImageError);

impl fmt::Display for NotAnImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an image that can be read: {}", self.0)
    }
}

impl std::error::Error for NotAnImage {}

/// A JPEG, so wide at most, of a PNG or a JPEG.
///
/// # Errors
///
/// The bytes are no image of these kinds, are damaged, or claim a size beyond the limits: a few bytes can claim any,
/// and memory is taken for what is claimed.
pub fn thumbnail(image: &[u8], width: u32) -> Result<Vec<u8>, NotAnImage> {
    shrunk(image, width).map_err(NotAnImage)
}

fn shrunk(image: &[u8], width: u32) -> Result<Vec<u8>, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(image)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits);
    let image = reader.decode()?;
    let width = width.clamp(1, WIDEST.min(image.width()));
    // Wide enough decides; the height follows.
    let small = image.thumbnail(width, LARGEST_SIDE);
    let mut jpeg = Vec::new();
    DynamicImage::from(small.to_rgb8())
        .write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY))?;
    Ok(jpeg)
}

/// A picture to try things with: a PNG of these sides, the same for the same seed.
///
/// # Panics
///
/// A side is 0.
pub fn sample_picture(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(width, height, |x, y| {
        let ring = (x * x + y * y).wrapping_mul(seed + 1) >> 8;
        image::Rgb([(x + seed * 40) as u8, y as u8, ring as u8])
    });
    let mut png = Vec::new();
    let written = picture.write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png);
    written.expect("an image with pixels can be written into memory");
    png
}

// ------------------------------------------------------------------------------------------------
// A settable amount
// ------------------------------------------------------------------------------------------------

/// How much is computed for an order: the CPU time that pricing, tax, fraud rules and documents take elsewhere.
///
/// It is a number of rounds, not a time, so that every order costs the same however often its thread is interrupted,
/// and whatever runs beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Links of the receipt's chain.
    pub rounds: u32,
}

impl Amount {
    /// As much as takes about so long on this machine just now: the median of some measurements, since a machine whose
    /// processors are shared with others has quick moments, and slow ones.
    pub fn of_time(time: Duration) -> Amount {
        const ROUNDS: u32 = 2_000;
        const MEASUREMENTS: usize = 101;
        let once = || {
            let began = Instant::now();
            std::hint::black_box(receipt(b"an order", Amount { rounds: ROUNDS }));
            began.elapsed()
        };
        let mut measured = [(); MEASUREMENTS].map(|()| once());
        measured.sort_unstable();
        let round = measured[MEASUREMENTS / 2].as_secs_f64() / f64::from(ROUNDS);
        Amount { rounds: (time.as_secs_f64() / round) as u32 }
    }
}

/// The receipt of an order: a chain of BLAKE2s digests over it, as hexadecimal digits. Whoever has the order can
/// repeat it, so an answer that belongs to another order does not go unnoticed.
pub fn receipt(order: &[u8], amount: Amount) -> String {
    let mut digest = Blake2s256::digest(order);
    for _ in 0..amount.rounds {
        digest = Blake2s256::new().chain_update(digest).chain_update(b"and again").finalize();
    }
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_recognised_and_others_are_not() {
        let hash = hash_password("correct horse");
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(is_password("correct horse", &hash));
        assert!(!is_password("battery staple", &hash));
        assert!(!is_password("correct horse", "no hash"));
    }

    #[test]
    fn a_thumbnail_keeps_the_form_of_its_image() {
        let jpeg = thumbnail(&sample_picture(300, 200, 1), 30).unwrap();
        let small = image::load_from_memory(&jpeg).unwrap();
        assert_eq!((small.width(), small.height()), (30, 20));
    }

    #[test]
    fn an_image_is_never_made_larger() {
        let jpeg = thumbnail(&sample_picture(30, 20, 1), 500).unwrap();
        assert_eq!(image::load_from_memory(&jpeg).unwrap().width(), 30);
    }

    #[test]
    fn what_is_no_image_or_half_of_one_is_refused() {
        let picture = sample_picture(300, 200, 1);
        for bytes in [b"no image".as_slice(), b"", &picture[..picture.len() / 2]] {
            thumbnail(bytes, 30).unwrap_err();
        }
    }

    #[test]
    fn an_image_that_claims_to_be_huge_is_refused_before_it_takes_memory() {
        let mut picture = sample_picture(1, 1, 1);
        // The width, in the header that comes first, and the checksum over the header.
        picture[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
        let error = thumbnail(&picture, 30).unwrap_err();
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn receipts_differ_by_order_and_by_amount() {
        let amount = Amount { rounds: 10 };
        assert_eq!(receipt(b"a", amount), receipt(b"a", amount));
        assert_ne!(receipt(b"a", amount), receipt(b"b", amount));
        assert_ne!(receipt(b"a", amount), receipt(b"a", Amount { rounds: 11 }));
    }
}
