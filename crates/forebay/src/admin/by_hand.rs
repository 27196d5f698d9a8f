//! What people change while the program runs: the budget of a pool, its connections, and the
//! configuration.
//!
//! Always true: only a call that says `content-type: application/json` changes anything. A
//! web page cannot send that to another origin without asking first (CORS, "preflight"), and
//! nobody answers such a question here.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forebay_pool::Snapshot;
use serde::Deserialize;
use serde_json::json;

use crate::reload::{Cause, ReloadError, Reloader};

/// Longest body of a call, bytes.
pub(super) const BODY: usize = 1 << 10;

/// The gateways whose pools can be changed. Cheap to clone.
#[derive(Clone)]
pub struct ByHand {
    postgres: Option<forebay_postgres::Gateway>,
    http: Option<forebay_http::Gateway>,
}

impl ByHand {
    /// The pools of these gateways.
    pub fn new(
        postgres: Option<forebay_postgres::Gateway>,
        http: Option<forebay_http::Gateway>,
    ) -> Self {
        Self { postgres, http }
    }

    /// Sets the budget of a pool; gives its picture after that, or `None` if there is no such
    /// pool.
    fn set_budget(
        &self,
        gateway: &str,
        destination: &str,
        budget: Option<u32>,
    ) -> Option<Snapshot> {
        let pools = match gateway {
            "postgres" => {
                let gateway = self.postgres.as_ref()?;
                gateway.set_budget(destination, budget).then(|| gateway.snapshot().pools)
            }
            "http" => {
                let gateway = self.http.as_ref()?;
                gateway.set_budget(destination, budget).then(|| gateway.snapshot().pools)
            }
            _ => None,
        };
        pools?.into_iter().find(|pool| &*pool.destination == destination)
    }

    /// Replaces the connections of a pool; gives its picture after that, or `None` if there
    /// is no such pool.
    fn renew(&self, gateway: &str, destination: &str) -> Option<Snapshot> {
        let pools = match gateway {
            "postgres" => {
                let gateway = self.postgres.as_ref()?;
                gateway.renew(destination).then(|| gateway.snapshot().pools)
            }
            "http" => {
                let gateway = self.http.as_ref()?;
                gateway.renew(destination).then(|| gateway.snapshot().pools)
            }
            _ => None,
        };
        pools?.into_iter().find(|pool| &*pool.destination == destination)
    }
}

/// The body of a call that sets a budget.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Required: a body that says nothing is a mistake, not a wish for the default.
    #[serde(deserialize_with = "Option::deserialize")]
    budget: Option<u32>,
}

/// The body of a call that has nothing to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

pub(super) async fn set_budget(
    State(pools): State<ByHand>,
    Path((gateway, destination)): Path<(String, String)>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Response {
    let wish = match wish {
        Ok(Json(wish)) => wish,
        Err(rejection) => return refuse(&rejection, "{\"budget\": 80}, or null"),
    };
    if wish.budget == Some(0) {
        let body = "at least one connection is needed\n";
        return (StatusCode::UNPROCESSABLE_ENTITY, body).into_response();
    }
    let Some(pool) = pools.set_budget(&gateway, &destination, wish.budget) else {
        return unknown();
    };
    tracing::info!(
        gateway,
        destination,
        wanted = wish.budget,
        budget = pool.budget,
        "the budget was set by hand"
    );
    Json(json!({
        "gateway": gateway,
        "destination": destination,
        "budget": pool.budget,
        "wanted": pool.wanted,
    }))
    .into_response()
}

pub(super) async fn renew(
    State(pools): State<ByHand>,
    Path((gateway, destination)): Path<(String, String)>,
    nothing: Result<Json<Nothing>, JsonRejection>,
) -> Response {
    if let Err(rejection) = nothing {
        return refuse(&rejection, "{}");
    }
    let Some(pool) = pools.renew(&gateway, &destination) else { return unknown() };
    tracing::info!(gateway, destination, leased = pool.leased, "connections are renewed by hand");
    Json(json!({
        "gateway": gateway,
        "destination": destination,
        "renewed": pool.closed.renewed,
        "leased": pool.leased,
    }))
    .into_response()
}

pub(super) async fn reload(
    State(reloader): State<Reloader>,
    nothing: Result<Json<Nothing>, JsonRejection>,
) -> Response {
    if let Err(rejection) = nothing {
        return refuse(&rejection, "{}");
    }
    match reloader.reload(Cause::Hand).await {
        Ok(outcome) => Json(outcome).into_response(),
        Err(error @ ReloadError::Stopping) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response()
        }
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
    }
}

fn refuse(rejection: &JsonRejection, expected: &str) -> Response {
    let expected = format!("expected `content-type: application/json` and {expected}");
    (rejection.status(), format!("{}\n{expected}\n", rejection.body_text())).into_response()
}

fn unknown() -> Response {
    let body = "there is no such pool: write `postgres/SERVER` or `http/DESTINATION`\n";
    (StatusCode::NOT_FOUND, body).into_response()
}
