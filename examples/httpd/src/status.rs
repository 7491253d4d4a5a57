//! What may become of a request.

use std::fmt;

/// A status code and its reason, as they stand in the first line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(&'static str);

macro_rules! statuses {
    ($($NAME:ident $line:literal)*) => {
        impl Status {
            $(#[doc = $line] pub const $NAME: Status = Status($line);)*
        }
    };
}

statuses! {
    OK "200 OK"
    CREATED "201 Created"
    ACCEPTED "202 Accepted"
    BAD_REQUEST "400 Bad Request"
    UNAUTHORIZED "401 Unauthorized"
    FORBIDDEN "403 Forbidden"
    NOT_FOUND "404 Not Found"
    METHOD_NOT_ALLOWED "405 Method Not Allowed"
    REQUEST_TIMEOUT "408 Request Timeout"
    CONFLICT "409 Conflict"
    CONTENT_TOO_LARGE "413 Content Too Large"
    UNSUPPORTED_MEDIA_TYPE "415 Unsupported Media Type"
    UNPROCESSABLE_CONTENT "422 Unprocessable Content"
    TOO_MANY_REQUESTS "429 Too Many Requests"
    HEAD_TOO_LARGE "431 Request Header Fields Too Large"
    INTERNAL_SERVER_ERROR "500 Internal Server Error"
    NOT_IMPLEMENTED "501 Not Implemented"
    BAD_GATEWAY "502 Bad Gateway"
    SERVICE_UNAVAILABLE "503 Service Unavailable"
    GATEWAY_TIMEOUT "504 Gateway Timeout"
}

impl Status {
    /// The code and its reason: `200 OK`.
    pub fn line(self) -> &'static str {
        self.0
    }

    /// The code alone: 200.
    pub fn code(self) -> u16 {
        self.0.bytes().take(3).fold(0, |code, digit| code * 10 + u16::from(digit - b'0'))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn a_code_is_the_number_that_its_line_begins_with() {
        assert_eq!(Status::OK.code(), 200);
        assert_eq!(Status::GATEWAY_TIMEOUT.code(), 504);
    }
}
