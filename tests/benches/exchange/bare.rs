//! The bare service: one durable grouped append, one signature, one key derivation.

use std::sync::Arc;

use dayfly_proto::v1;
use dayfly_proto::v1::access_service_server::AccessService;
use dayfly_verifier::wire::{LocalSigner, TokenSigner as _};
use tonic::{Request, Response, Status};

use super::appends::Appends;

/// As many bytes as a token of one right has before the text encoding.
const TOKEN_BYTES: usize = 710;

/// The service.
pub(crate) struct Bare {
    pub(crate) appends: Appends,
    pub(crate) signer: Arc<LocalSigner>,
}

type Stream = futures_util::stream::Pending<Result<v1::WatchRequestResponse, Status>>;

fn absent<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the bare service only exchanges"))
}

#[tonic::async_trait]
impl AccessService for Bare {
    type WatchRequestStream = Stream;

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let v1::ExchangeRequest { request_id, exchange_id, proof: _ } = request.into_inner();
        self.appends.append().await?;
        let failed = |e: dayfly_verifier::wire::SignerError| Status::internal(e.to_string());
        let mut block = vec![0; TOKEN_BYTES];
        let next = self.signer.derive(exchange_id.as_bytes()).map_err(failed)?;
        block.iter_mut().zip(next.iter()).for_each(|(to, from)| *to = *from);
        let signature = self.signer.sign(&block).map_err(failed)?;
        block.iter_mut().zip(signature).for_each(|(to, from)| *to = from);
        use base64::Engine as _;
        Ok(Response::new(v1::ExchangeResponse {
            token: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(block),
            token_id: exchange_id,
            expires_at_ms: 0,
            grant_id: request_id,
        }))
    }

    async fn request_access(
        &self,
        _: Request<v1::RequestAccessRequest>,
    ) -> Result<Response<v1::RequestAccessResponse>, Status> {
        absent()
    }

    async fn watch_request(
        &self,
        _: Request<v1::WatchRequestRequest>,
    ) -> Result<Response<Stream>, Status> {
        absent()
    }

    async fn complete(
        &self,
        _: Request<v1::CompleteRequest>,
    ) -> Result<Response<v1::CompleteResponse>, Status> {
        absent()
    }

    async fn cancel(
        &self,
        _: Request<v1::CancelRequest>,
    ) -> Result<Response<v1::CancelResponse>, Status> {
        absent()
    }

    async fn list_my_grants(
        &self,
        _: Request<v1::ListMyGrantsRequest>,
    ) -> Result<Response<v1::ListMyGrantsResponse>, Status> {
        absent()
    }

    async fn get_dossier(
        &self,
        _: Request<v1::GetDossierRequest>,
    ) -> Result<Response<v1::GetDossierResponse>, Status> {
        absent()
    }
}
