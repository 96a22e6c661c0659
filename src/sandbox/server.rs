//! The HTTP side: three listeners on the loopback interface, one thread that owns them, and the
//! play of faults.

use std::{
    any::Any,
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Extensions, ServerHandle},
    http::StatusCode,
    rt, web,
};

use super::{
    Shared,
    answer::Answer,
    call::{Call, Route, Service},
    faults::FaultKind,
    lock,
    record::RecordId,
};

/// The largest body that is read; a larger one is refused before anything else.
const BODY_LIMIT: usize = 1 << 20;

/// How long bytes that are written past actix may take to leave.
const RAW_WRITE_LIMIT: Duration = Duration::from_secs(5);

/// The running server.
pub(super) struct Server {
    addresses: [SocketAddr; 3],
    handle: ServerHandle,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Binds the ports of IAM, OMS and SMS, in this order, and serves them from a thread of its
    /// own.
    pub(super) fn start(ports: [u16; 3], shared: Shared) -> io::Result<Self> {
        let listen = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listeners = [listen(ports[0])?, listen(ports[1])?, listen(ports[2])?];
        let [iam, oms, sms] = &listeners;
        let addresses = [iam.local_addr()?, oms.local_addr()?, sms.local_addr()?];
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("sandbox".to_owned())
            .spawn(move || serve(listeners, addresses, shared, &sender))?;
        let ended = |_| io::Error::other("the thread of the sandbox ended before it served");
        let handle = receiver.recv().map_err(ended)??;
        Ok(Self {
            addresses,
            handle,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(super) fn url(&self, service: Service) -> String {
        let [iam, oms, sms] = self.addresses;
        let address = match service {
            Service::Iam => iam,
            Service::Oms => oms,
            Service::Sms => sms,
        };
        format!("http://{address}")
    }

    pub(super) fn stop(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // The command is sent by the call itself; the future only waits for what the join below
            // waits for.
            drop(self.handle.stop(false));
            // A thread that panicked has stopped too.
            drop(thread.join());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The body of the server's thread.
fn serve(
    listeners: [TcpListener; 3],
    addresses: [SocketAddr; 3],
    shared: Shared,
    started: &mpsc::Sender<io::Result<ServerHandle>>,
) {
    rt::System::new().block_on(async move {
        let server = match build(listeners, addresses, shared) {
            Ok(server) => server,
            Err(error) => {
                // It fails only if the starter is gone: then there is nobody to tell.
                drop(started.send(Err(error)));
                return;
            }
        };
        drop(started.send(Ok(server.handle())));
        // An error ends the server; clients see refused connections.
        drop(server.await);
    });
}

fn build(
    listeners: [TcpListener; 3],
    addresses: [SocketAddr; 3],
    shared: Shared,
) -> io::Result<actix_web::dev::Server> {
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(web::PayloadConfig::new(BODY_LIMIT))
            .app_data(web::Data::new(Arc::clone(&shared)))
            .default_service(web::to(serve_call))
    })
    .on_connect(move |connection, data| remember(addresses, connection, data))
    .workers(2)
    .disable_signals()
    .keep_alive(Duration::from_mins(1))
    // A client that goes away ends what hangs for it.
    .h1_allow_half_closed(false);
    for listener in listeners {
        server = server.listen(listener)?;
    }
    Ok(server.run())
}

/// What a handler knows about its connection.
struct Connection {
    service: Service,
    /// The same socket once more, for ends that HTTP does not have.
    socket: TcpStream,
}

/// Notes for a connection which service it reached, and its socket.
fn remember(addresses: [SocketAddr; 3], connection: &dyn Any, data: &mut Extensions) {
    let Some(stream) = connection.downcast_ref::<rt::net::TcpStream>() else {
        return;
    };
    let (Ok(local), Ok(socket)) = (stream.local_addr(), stream.as_fd().try_clone_to_owned()) else {
        return;
    };
    let service = if local == addresses[0] {
        Service::Iam
    } else if local == addresses[1] {
        Service::Oms
    } else {
        Service::Sms
    };
    data.insert(Connection {
        service,
        socket: TcpStream::from(socket),
    });
}

/// How a request is answered.
enum Reply {
    /// In HTTP.
    Http(Answer),
    /// By these bytes and the end of the connection.
    Raw(Vec<u8>),
}

async fn serve_call(
    request: HttpRequest,
    body: web::Bytes,
    shared: web::Data<Shared>,
) -> HttpResponse {
    let Some(connection) = request.conn_data::<Connection>() else {
        // The socket could not be duplicated, for lack of file descriptors.
        return HttpResponse::InternalServerError().finish();
    };
    let shared: Shared = Arc::clone(&shared);
    let call = Arc::new(read(&request, connection.service, &body));
    let (record, fault) = lock(&shared).open(&call);
    let reply = match fault {
        None => Reply::Http(lock(&shared).answer(&call)),
        Some(fault) => play(fault, &call, &shared, connection).await,
    };
    match reply {
        Reply::Http(answer) => {
            lock(&shared).records.answered(record, answer.status);
            respond(answer)
        }
        Reply::Raw(bytes) => end_with(&bytes, record, &shared, connection).await,
    }
}

fn read(request: &HttpRequest, service: Service, body: &[u8]) -> Call {
    let header = |(name, value): (&actix_web::http::header::HeaderName, _)| {
        let value: &actix_web::http::header::HeaderValue = value;
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    let (method, path) = (request.method().as_str(), request.path());
    Call {
        service,
        method: method.to_owned(),
        path: path.to_owned(),
        query: request.query_string().to_owned(),
        headers: request.headers().iter().map(header).collect(),
        body: body.to_vec(),
        route: Route::find(service, method, path, body),
        request_id: format!("{:032x}", fastrand::u128(..)),
    }
}

async fn play(
    fault: FaultKind,
    call: &Arc<Call>,
    shared: &Shared,
    connection: &Connection,
) -> Reply {
    let effect = || lock(shared).answer(call);
    match fault {
        FaultKind::Answer(answer) => Reply::Http(answer),
        FaultKind::AnswerAfterEffect(answer) => {
            effect();
            Reply::Http(answer)
        }
        FaultKind::Delay(time) => {
            let answer = effect();
            rt::time::sleep(time).await;
            Reply::Http(answer)
        }
        FaultKind::DelayEffect(time) => Reply::Http(late_effect(time, call, shared).await),
        FaultKind::Hang => std::future::pending().await,
        FaultKind::HangAfterEffect => {
            effect();
            std::future::pending().await
        }
        FaultKind::DropBeforeEffect => Reply::Raw(Vec::new()),
        FaultKind::DropAfterEffect => {
            effect();
            Reply::Raw(Vec::new())
        }
        FaultKind::CutBody => Reply::Raw(cut(&effect())),
        FaultKind::GarbledBody => Reply::Http(garbled(effect())),
        FaultKind::HtmlPage { status } => {
            let page = "<html><body><h1>Bad gateway</h1></body></html>";
            Reply::Http(Answer::text(status, "text/html", page))
        }
        FaultKind::Redirect { status, location } => {
            Reply::Http(Answer::empty(status).header("Location", &location))
        }
        FaultKind::Raw(bytes) => Reply::Raw(bytes),
        FaultKind::Prefix(bytes) => {
            write_raw(&connection.socket, &bytes).await;
            Reply::Http(effect())
        }
    }
}

/// Works on a request later, on a task that the client's leaving does not end.
async fn late_effect(time: Duration, call: &Arc<Call>, shared: &Shared) -> Answer {
    let (call, shared) = (Arc::clone(call), Arc::clone(shared));
    let work = rt::spawn(async move {
        rt::time::sleep(time).await;
        lock(&shared).answer(&call)
    });
    work.await.unwrap_or_else(|_| Answer::empty(500))
}

/// An answer whose body is half of what its head announces.
fn cut(answer: &Answer) -> Vec<u8> {
    let mut head = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n",
        status_of(answer),
        answer.body.len().max(64),
    );
    for (name, value) in &answer.headers {
        // Writing to a text cannot fail.
        let _ = write!(head, "{}: {value}\r\n", name.to_lowercase());
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    if answer.body.is_empty() {
        bytes.push(b'{');
    }
    bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
    bytes
}

/// An answer that says it is JSON and is not.
fn garbled(mut answer: Answer) -> Answer {
    answer.content_type = Some("application/json".to_owned());
    answer.body.truncate(answer.body.len() / 2);
    answer.body.extend_from_slice(b"{\"tasks\": [}");
    answer
}

fn status_of(answer: &Answer) -> StatusCode {
    StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn respond(answer: Answer) -> HttpResponse {
    let mut response = HttpResponse::build(status_of(&answer));
    if let Some(content_type) = answer.content_type {
        response.content_type(content_type);
    }
    for (name, value) in answer.headers {
        response.append_header((name, value));
    }
    response.body(answer.body)
}

/// Writes bytes past actix and ends the connection in both directions.
async fn end_with(
    bytes: &[u8],
    record: RecordId,
    shared: &Shared,
    connection: &Connection,
) -> HttpResponse {
    if let Some(status) = raw_status(bytes) {
        lock(shared).records.answered(record, status);
    }
    write_raw(&connection.socket, bytes).await;
    // It fails only when the client has ended the connection already.
    drop(connection.socket.shutdown(Shutdown::Both));
    // Nobody receives this: the socket takes no further byte.
    HttpResponse::Ok().force_close().finish()
}

/// The status that raw bytes announce, if they are the beginning of an answer.
fn raw_status(bytes: &[u8]) -> Option<u16> {
    let head = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(head).ok()?.parse().ok()
}

/// Writes to a socket that does not block, within a limit of time. A client that is gone needs no
/// bytes.
async fn write_raw(mut socket: &TcpStream, mut bytes: &[u8]) {
    let pause = Duration::from_millis(1);
    let mut left = RAW_WRITE_LIMIT;
    while !bytes.is_empty() && !left.is_zero() {
        match socket.write(bytes) {
            Ok(0) => return,
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                rt::time::sleep(pause).await;
                left = left.saturating_sub(pause);
            }
            Err(_) => return,
        }
    }
}
