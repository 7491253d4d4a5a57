//! What there is to ask for.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /items/N`: what can be ordered.
    Item(i64),
    /// `POST /orders`: the request of the story.
    PlaceOrder,
    /// `GET /orders/N`: an order that was placed.
    Order(i64),
    /// `POST /register`: a new user.
    Register,
    /// `POST /login`: whether a password is right.
    Login,
    /// `POST /thumbnail?width=N`: a small JPEG of the image in the body.
    Thumbnail,
    /// `POST /jobs`: a background job.
    Submit,
    /// `GET /jobs/N`: what has become of it.
    Job(u64),
    /// `GET /jobs/N/product`: what it has made.
    Product(u64),
    /// `GET /telemetry?samples=N`: the newest samples.
    Telemetry,
    /// `GET /health`: whether the service works.
    Health,
    /// `GET /metrics`: figures for Prometheus.
    Metrics,
}

/// Why there is nothing to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nowhere {
    /// Nothing has this path.
    Missing,
    /// Something has, for these methods.
    NotAllowed(&'static str),
}

impl Route {
    /// By method and path.
    ///
    /// # Errors
    ///
    /// There is nothing, or not for this method.
    pub fn of(method: &str, path: &str) -> Result<Route, Nowhere> {
        let (get, post) = ("GET, HEAD", "POST");
        let (allowed, route) = match *path.split('/').skip(1).collect::<Vec<_>>() {
            ["items", id] => (get, number(id).map(Route::Item)),
            ["orders"] => (post, Some(Route::PlaceOrder)),
            ["orders", id] => (get, number(id).map(Route::Order)),
            ["register"] => (post, Some(Route::Register)),
            ["login"] => (post, Some(Route::Login)),
            ["thumbnail"] => (post, Some(Route::Thumbnail)),
            ["jobs"] => (post, Some(Route::Submit)),
            ["jobs", id] => (get, number(id).map(Route::Job)),
            ["jobs", id, "product"] => (get, number(id).map(Route::Product)),
            ["telemetry"] => (get, Some(Route::Telemetry)),
            ["health"] => (get, Some(Route::Health)),
            ["metrics"] => (get, Some(Route::Metrics)),
            _ => return Err(Nowhere::Missing),
        };
        if !allowed.split(", ").any(|one| one == method) {
            return Err(Nowhere::NotAllowed(allowed));
        }
        route.ok_or(Nowhere::Missing)
    }

    /// What it is called in logs and metrics: without numbers, of which there is no end.
    pub fn name(self) -> &'static str {
        match self {
            Route::Item(_) => "/items/N",
            Route::PlaceOrder => "/orders",
            Route::Order(_) => "/orders/N",
            Route::Register => "/register",
            Route::Login => "/login",
            Route::Thumbnail => "/thumbnail",
            Route::Submit => "/jobs",
            Route::Job(_) => "/jobs/N",
            Route::Product(_) => "/jobs/N/product",
            Route::Telemetry => "/telemetry",
            Route::Health => "/health",
            Route::Metrics => "/metrics",
        }
    }

    /// Whether it is answered however much is under way: who looks into a service wants to know just then.
    pub fn is_for_operators(self) -> bool {
        matches!(self, Route::Telemetry | Route::Health | Route::Metrics)
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_lead_somewhere_or_nowhere() {
        assert_eq!(Route::of("GET", "/items/7"), Ok(Route::Item(7)));
        assert_eq!(Route::of("HEAD", "/health"), Ok(Route::Health));
        assert_eq!(Route::of("POST", "/orders"), Ok(Route::PlaceOrder));
        assert_eq!(Route::of("GET", "/jobs/3/product"), Ok(Route::Product(3)));
        assert_eq!(Route::of("GET", "/orders"), Err(Nowhere::NotAllowed("POST")));
        assert_eq!(Route::of("POST", "/items/7"), Err(Nowhere::NotAllowed("GET, HEAD")));
        for path in ["/", "/items", "/items/", "/items/x", "/items/7/", "//items/7", "*"] {
            assert_eq!(Route::of("GET", path), Err(Nowhere::Missing), "{path}");
        }
    }
}
