//! The sign-in page and signing out.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::{cookie, hex, store};
use crate::app::App;
use crate::auth;
use crate::error::Result;
use crate::extract::{Form, Query};
use crate::http::{Access, Connection, Route};
use crate::ui::{PageContext, local_path, redirect};

/// Sign-in and sign-out.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/sign-in", Access::Public, show),
        Route::post("/sign-in", Access::Public, sign_in),
        Route::post("/sign-out", Access::Public, sign_out),
    ]
}

#[derive(Deserialize)]
struct Next {
    return_to: Option<String>,
}

async fn show(
    State(app): State<App>,
    page: PageContext,
    Query(query): Query<Next>,
) -> Result<Response> {
    if crate::setup::is_needed(&app.db).await? {
        return crate::setup::explain(&page).await;
    }
    let view =
        json!({"email": "", "errors": {}, "return_to": local_path(query.return_to.as_deref())});
    page.render("sessions/sign_in.html", view).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    email: String,
    #[serde(default)]
    password: String,
    return_to: Option<String>,
}

async fn sign_in(
    State(app): State<App>,
    page: PageContext,
    connection: axum::Extension<Connection>,
    headers: HeaderMap,
    Form(form): Form<SignIn>,
) -> Result<Response> {
    let from = connection.peer.ip().to_string();
    let next = local_path(form.return_to.as_deref());
    match super::check_password(&app, &form.email, form.password, &from).await? {
        Some(user) => {
            let mut response = redirect(next).into_response();
            let agent = headers
                .get(header::USER_AGENT)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            super::begin(&app, user, agent, &mut response).await?;
            Ok(response)
        }
        None => {
            let errors = json!({"form": page.t("signin-failed")});
            let view = json!({"email": form.email, "errors": errors, "return_to": next});
            page.render_with_status(
                StatusCode::UNPROCESSABLE_ENTITY,
                "sessions/sign_in.html",
                view,
            )
            .await
        }
    }
}

/// Ends whatever this browser was: a person's session and a guest's visit. A guest has no
/// account to sign in to, so they are told that their link opens the review again.
async fn sign_out(State(app): State<App>, headers: HeaderMap) -> Result<Response> {
    let session = cookie(&app, &headers);
    if let Some(cookie) = &session {
        store::revoke(&app.db, &hex(&auth::hash_token(cookie)), app.clock.now_us()).await?;
    }
    let mut response = redirect(match session {
        None if crate::review::guest_cookie(&app, &headers).is_some() => crate::review::LINK_PATH,
        _ => "/sign-in",
    })
    .into_response();
    crate::ui::set_cookie(&app, &mut response, super::cookie_name(&app), "", Some(0));
    crate::review::leave_guest(&app, &headers, &mut response).await?;
    Ok(response)
}
