//! What is to be given to the server.

use crate::request::Request;
use crate::response::Response;

/// Answers requests.
///
/// A function from [`Request`] to [`Response`] is one.
///
/// # Blocking
///
/// It runs on the connection's thread and may block as it likes: only its own connection waits. How many requests may
/// be under way at a time is its business; whoever sheds load answers [`Response::unavailable`].
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The response may borrow from the request, and from the handler.
    ///
    /// # Panics
    ///
    /// A panic is answered with [500](crate::Status::INTERNAL_SERVER_ERROR) and ends the connection, nothing else.
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a>;
}

impl<F> Handler for F
where
    F: Fn(&Request<'_>) -> Response<'static> + Send + Sync + 'static,
{
    fn handle<'a>(&'a self, request: &Request<'a>) -> Response<'a> {
        self(request)
    }
}
