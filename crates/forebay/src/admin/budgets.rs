//! Budgets set by hand while the program runs.
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

/// Longest body of a call, bytes.
pub(super) const BODY: usize = 1 << 10;

/// The gateways whose pools can be resized.
#[derive(Clone)]
pub struct Budgets {
    postgres: Option<forebay_postgres::Gateway>,
    http: Option<forebay_http::Gateway>,
}

impl Budgets {
    /// The budgets of these gateways.
    pub fn new(
        postgres: Option<forebay_postgres::Gateway>,
        http: Option<forebay_http::Gateway>,
    ) -> Self {
        Self { postgres, http }
    }

    /// Sets the budget of a pool; gives its picture after that, or `None` if there is no such
    /// pool.
    fn set(&self, gateway: &str, destination: &str, budget: Option<u32>) -> Option<Snapshot> {
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
}

/// The body of the call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Required: a body that says nothing is a mistake, not a wish for the default.
    #[serde(deserialize_with = "Option::deserialize")]
    budget: Option<u32>,
}

pub(super) async fn set(
    State(budgets): State<Budgets>,
    Path((gateway, destination)): Path<(String, String)>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Response {
    let wish = match wish {
        Ok(Json(wish)) => wish,
        Err(rejection) => {
            let expected =
                "expected `content-type: application/json` and {\"budget\": 80}, or null";
            let body = format!("{}\n{expected}\n", rejection.body_text());
            return (rejection.status(), body).into_response();
        }
    };
    if wish.budget == Some(0) {
        let body = "at least one connection is needed\n";
        return (StatusCode::UNPROCESSABLE_ENTITY, body).into_response();
    }
    let Some(pool) = budgets.set(&gateway, &destination, wish.budget) else {
        let body = "there is no such pool: write `postgres/SERVER` or `http/DESTINATION`\n";
        return (StatusCode::NOT_FOUND, body).into_response();
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
