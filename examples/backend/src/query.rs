//! What follows the question mark: `width=64&more=1`.

/// The value of a key. Percent signs are left as they are; what is asked for here are numbers.
pub fn value<'a>(query: Option<&'a str>, key: &str) -> Option<&'a str> {
    let pairs = query?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use super::value;

    #[test]
    fn a_value_is_found_by_its_key() {
        assert_eq!(value(Some("a=1&b=2&b=3"), "b"), Some("2"));
        assert_eq!(value(Some("ab=1&b"), "b"), None);
        assert_eq!(value(None, "b"), None);
    }
}
