//! What a handler is asked.
//!
//! All of it is borrowed from the bytes that were received. Most handlers look at no field and others at one or two, so
//! there is no table of them: a look-up walks through the lines of the head, which has been parsed and found to be well
//! formed before.

use std::fmt;

/// A request that has arrived in full.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// As it was sent: `GET`.
    pub method: &'a str,
    /// The path, without the query. Percent signs are left as they are.
    pub path: &'a str,
    /// What follows the question mark.
    pub query: Option<&'a str>,
    /// The body, out of its chunks if it was sent in such.
    pub body: &'a [u8],
    /// The lines of the head after the first, with their ends.
    fields: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request as it would have been received, to try handlers on: `fields` are lines as `Name: value`.
    ///
    /// # Examples
    ///
    /// ```
    /// use uthread_httpd::Request;
    ///
    /// let request = Request::new("GET", "/items?from=7", "Accept: text/plain\r\n", b"");
    /// assert_eq!((request.path, request.query), ("/items", Some("from=7")));
    /// assert_eq!(request.header("accept"), Some("text/plain".as_bytes()));
    /// ```
    pub fn new(
        method: &'a str,
        target: &'a str,
        fields: &'a (impl AsRef<[u8]> + ?Sized),
        body: &'a [u8],
    ) -> Request<'a> {
        let (path, query) = path_and_query(target);
        Request { method, path, query, body, fields: fields.as_ref() }
    }

    /// The value of the first field of that name, in whichever case, without spaces around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// All fields in their order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.fields.split(|&byte| byte == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { method, path, query, body, .. } = self;
        f.debug_struct("Request")
            .field("method", method)
            .field("path", path)
            .field("query", query)
            .field("body_bytes", &body.len())
            .finish_non_exhaustive()
    }
}

/// The parts of `/path?query` or, as a proxy would be asked, of `http://host/path?query`.
fn path_and_query(target: &str) -> (&str, Option<&str>) {
    let origin_form = match target.strip_prefix("http://") {
        Some(rest) => rest.find(['/', '?']).map_or("", |end| &rest[end..]),
        None => target,
    };
    let (path, query) = match origin_form.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin_form, None),
    };
    (if path.is_empty() { "/" } else { path }, query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_falls_into_path_and_query() {
        let cases = [
            ("/", "/", None),
            ("/a/b", "/a/b", None),
            ("/a%20b?", "/a%20b", Some("")),
            ("/a?b=/c?d", "/a", Some("b=/c?d")),
            ("//", "//", None),
            ("*", "*", None),
            ("http://host", "/", None),
            ("http://host/a?b", "/a", Some("b")),
            ("http://host?a=/b", "/", Some("a=/b")),
        ];
        for (target, path, query) in cases {
            assert_eq!(path_and_query(target), (path, query), "{target}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_name_in_any_case() {
        let fields = "Host: test\r\nEmpty:\r\nX-Twice: 1:2 \r\nx-twice: other\r\n\r\n";
        let request = Request::new("GET", "/", fields, b"");
        assert_eq!(request.header("HOST"), Some(b"test".as_slice()));
        assert_eq!(request.header("empty"), Some(b"".as_slice()));
        assert_eq!(request.header("x-twice"), Some(b"1:2".as_slice()));
        assert_eq!(request.header("twice"), None);
        assert_eq!(request.headers().count(), 4);
    }
}
