//! The routes as a server has them, without the sockets: what a property asks goes through all of `leasehold::http`.

use std::pin::Pin;
use std::rc::Rc;

use actix_web::dev::ServiceResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, body};
use leasehold::http::{Access, Limits, configure};
use leasehold::{LockManager, ManualClock};

use super::answers::Answer;

/// The token that [`guarded`] routes know.
pub(super) const BEARER: &str = "hunter2-hunter2-hunter2";

type Routes = Rc<dyn Fn(TestRequest) -> Pin<Box<dyn Future<Output = ServiceResponse>>>>;

/// A manager, and its routes. One for each thread that asks.
pub(super) struct Site {
    pub(super) locks: LockManager,
    routes: Routes,
    system: actix_rt::SystemRunner,
}

impl Site {
    fn new(access: Access) -> Self {
        // Time stands still: on a loaded machine ten milliseconds are over before a grant is seen.
        let clock = ManualClock::new().clock();
        let locks = LockManager::builder().clock(clock).build().expect("a manager of the defaults");
        let system = actix_rt::System::new();
        let app = App::new().app_data(locks.clone()).app_data(Limits::new()).app_data(access).configure(configure);
        let service = Rc::new(system.block_on(init_service(app)));
        let routes = move |request: TestRequest| {
            let service = Rc::clone(&service);
            Box::pin(async move { call_service(&*service, request.to_request()).await }) as Pin<Box<_>>
        };
        Self { locks, routes: Rc::new(routes), system }
    }

    pub(super) fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.system.block_on(work)
    }

    /// Asks, and reads the answer, but for a stream without end.
    pub(super) fn ask(&self, request: TestRequest) -> Answer {
        self.run(async {
            let answer = (self.routes)(request).await;
            let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let kind = header(CONTENT_TYPE.as_str()).to_owned();
            let request_id = header("x-request-id").to_owned();
            let status = answer.status().as_u16();
            let bytes = match &*kind {
                "text/event-stream" => Default::default(),
                _ => body::to_bytes(answer.into_body()).await.unwrap_or_default(),
            };
            Answer { status, kind, request_id, body: serde_json::from_slice(&bytes).unwrap_or_default() }
        })
    }
}

thread_local! {
    // Never dropped: a thread that ends has no System any more, which they would need.
    static OPEN: &'static Site = Box::leak(Box::new(Site::new(Access::open())));
    static GUARDED: &'static Site = Box::leak(Box::new(Site::new(
        Access::from_json(&format!(r#"[{{"name":"n","token":"{BEARER}","rights":["acquire","read"]}}]"#)).expect("a list"),
    )));
}

/// With routes that are open to all.
pub(super) fn open<T>(ask: impl FnOnce(&Site) -> T) -> T {
    OPEN.with(|site| ask(site))
}

/// With routes that ask for [`BEARER`].
pub(super) fn guarded<T>(ask: impl FnOnce(&Site) -> T) -> T {
    GUARDED.with(|site| ask(site))
}
