//! Nests the dashboard into an axum service, with the service's own login.
//!
//! ```sh
//! cargo run --example dashboard --features dashboard,sqlite
//! ```
//!
//! Then open <http://localhost:3000/login?user=ada>, which leads to the dashboard. `bob` may only read, and sees no content of mail.

use std::error::Error;

use axum::extract::{Query, Request};
use axum::http::{HeaderMap, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Router, serve};
use postrider::dashboard::{Access, Dashboard};
use postrider::{Email, Outbox, SqliteStore};
use tokio::net::TcpListener;

/// The user of a request.
#[derive(Clone)]
struct User(String);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let outbox = Outbox::enqueue_only(SqliteStore::open("sqlite://dashboard-example.db").await?);
    outbox.migrate().await?;
    let email = Email::builder().from("shop@example.com").to("ada@example.com").subject("Your order");
    outbox.enqueue(email.text("It is on its way.").html("<h1>It is on its way.</h1>").build()?).await?;

    // Who may do what, and where.
    let dashboard = Dashboard::new(outbox).access(|request| async move {
        match request.extensions.get::<User>() {
            Some(User(name)) if name == "ada" => Access::operate().by(name),
            Some(User(name)) => Access::read().by(name).without_bodies(),
            None => Access::none(),
        }
    });
    let app = Router::new()
        .nest_service("/admin/mail", dashboard.into_router())
        .layer(from_fn(session))
        .route("/login", get(login));

    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    Ok(serve(listener, app).await?)
}

/// The service's own session: here a cookie with the name of the user. Use signed sessions instead.
async fn session(headers: HeaderMap, mut request: Request, next: Next) -> Response {
    let cookies = headers.get(header::COOKIE).and_then(|cookies| cookies.to_str().ok()).unwrap_or_default();
    if let Some(user) = cookies.split("; ").find_map(|cookie| cookie.strip_prefix("user=")) {
        request.extensions_mut().insert(User(user.to_owned()));
    }
    next.run(request).await
}

async fn login(Query(query): Query<Vec<(String, String)>>) -> impl IntoResponse {
    let user = query.into_iter().find(|(name, _)| name == "user").map(|(_, user)| user).unwrap_or_default();
    let user: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
    ([(header::SET_COOKIE, format!("user={user}; HttpOnly; SameSite=Lax"))], Redirect::to("/admin/mail"))
}
