//! JSON from strangers and for them.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// Reads a body.
///
/// # Errors
///
/// [`Failure::Malformed`], with what was expected and the line and column where something else is.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::Malformed(format!("malformed JSON: {error}")))
}

/// Writes an answer.
///
/// # Panics
///
/// The value cannot be written as JSON, which those of this service can.
pub fn write(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers, strings and structs of them")
}
