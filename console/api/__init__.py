"""The REST API (FastAPI). Serves reads from the store, hands what changes things to the gateway; decides nothing that the worker does not verify again.

Everything is under `/api/v1`, wants `Authorization: Bearer <identity token>` (but for triggers, whose deliveries are signed) and answers JSON; errors are `application/problem+json`
(`{type, title, status, detail, instance, errors?: [{path, message}]}`). Lists are `{"items": [...], "next": cursor|null}` and take
`limit` (1–1000, default 100) and `cursor`. Views are those of `justenough.domain.readmodel.views`. The exact contract is `/openapi.json`.

    GET  /whoami                          → 200 {id, name, groups: [...], roles: ["launch"|"approve"|"read"...], tier: 0–3, installation}
    GET  /catalog                         → 200 {scopes: [{tenant: acme}...], resources: [{name, title, environment, sensitivity, external, owner,
                                              actions: [{action, max_ttl (seconds), revocable, data_scope: [key...], lock, space}]}]}
    POST /bundles   (application/gzip)    → 201 {digest, size}; 200 when it is there already
    POST /jobs {id, spec, bundle?, params?, reason?, statement, signature}   (header Idempotency-Key optional)
                                          → 201 JobView, header Location; 200 JobView when the same was accepted before
                                            (same id and content, or same key and content: then the answer's id may differ from the one sent)
    POST /jobs {spec, bundle?, params?, reason?, dry_run: true}
                                          → 200 {valid: true, requests: [{resource, action, ttl, outcome, tier, policies, policy_digest, errors}]};
                                            nothing is stored; id, statement and signature may be left out
    GET /schedules · /schedules/{name}                                     → how each stands, when it is due next, what it launched
    POST /schedules/{name}/pause {reason} · /schedules/{name}/unpause      → how it stands now
    POST /schedules/{name}/run {reason?}                                   → 201 {id, state}; 200 when the same Idempotency-Key launched its job before
    POST /triggers/{name}  (a CloudEvent, signed as Standard Webhooks says; no token)   → 201 {id, state}; 200 when the event launched its job before
    GET  /jobs?state=&environment=&requester=&limit=&cursor=   → 200 page of JobSummary (requester: login name; a launcher sees their own)
    GET  /jobs/{id}                       → 200 JobView
    POST /jobs/{id}/cancel                → 202 {id, state}; 409 when it has ended
    POST /jobs/{id}/kill                  → 202 {id, state}; 409 when it has ended
    POST /jobs/{id}/prove                 → 200 ProofReport
    GET  /jobs/{id}/logs?after=SEQ&limit= → 200 {items: [LogChunk], next}: next is the SEQ to go on after, null when there is no more now
    GET  /jobs/{id}/timeline?limit=&cursor=   → 200 page of EntryView (the job's ledger entries in order)
    GET  /jobs/{id}/events                → 200 text/event-stream; id: position in the ledger, event: type, data: CloudEvent JSON
    GET  /events?after=POSITION           → the same for every job that the caller may read. Both: header Last-Event-ID goes on after it;
                                            without it /events begins with what comes next, /jobs/{id}/events with the job's first entry.
                                            The stream ends when the token expires; come back with a fresh one.
    GET  /requests?state=pending|allowed|approved|denied|expired|withdrawn|all&mine=true&job=&limit=&cursor=
                                          → 200 page of RequestView (state defaults to pending; mine: what the caller can answer now)
    GET  /requests/{id}                   → 200 RequestView, header ETag: "<digest>"
    POST /requests/{id}/decisions {statement, signature}   (header If-Match: "<digest>" or <digest>, required)
                                          → 200 RequestView when the worker counted it; 202 RequestView when it is delivered but not yet counted.
                                            403 own job | wrong group | not your statement | bad signature; 404; 409 not pending | answered already;
                                            412 stale digest; 422 malformed; 428 without If-Match
    POST /requests/{id}/claim {seconds?}  → 200 RequestView: the caller looks at it (default 900 s); DELETE: no longer
    POST /requests/{id}/review {statement, signature} → 200 RequestView: what somebody thinks of broken glass; the first one stands
    GET  /reviews?all=&limit=&cursor=     → 200 page of ReviewView, open ones unless all=true (who reads everything)
    GET  /delegations?limit=&cursor=      → 200 page of DelegationView (who reads everything)
    POST /delegations {statement, signature} → 200 DelegationView; DELETE /delegations/{id}: ended
    GET  /people/{name}                   → 200 {id, name, tier}: an approver by login name (approvers)
    GET  /credentials?live=true&job=&limit=&cursor=   → 200 page of CredentialView
    GET  /credentials/{id}                → 200 CredentialView
    POST /credentials/{id}/revoke         → 200 CredentialView when confirmed dead (or dead already); 202 CredentialView when it is on its way
    GET  /ledger?job=&type=&since=&until=&after=POSITION&limit=   → 200 page of EntryView; cursor = after = the last position seen (as text)
    GET  /ledger/checkpoint               → 200 {entries, position, hash}: the newest entry (not a signed checkpoint)
    POST /ledger/verify                   → 200 LedgerReport
    GET  /sizing?since=&limit=&cursor=    → 200 page (20 by default, 100 at most, as /catalog/usage) of SizingSummary: each job name, what its newest
                                              100 runs were granted and used (a launcher: by their own runs)
    GET  /sizing/{name}?since=&runs=      → 200 Sizing: what the newest `runs` (default 100) past runs of a job would have needed
    GET  /catalog/usage?since=&limit=&cursor= → 200 page of ActionUse: what was asked of each action of each resource, over all jobs
    GET  /report?since=&until=            → 200 Report (justenough.domain.evidence.report): figures of a period with their evidence
    POST /sweep                           → 200 SweepReport (runs one now)
At the root, without a token: GET /livez /readyz /metrics /openapi.json.

Everywhere: 401 no valid token (WWW-Authenticate: Bearer), 403 the right that is missing ("needs one of the groups: support-leads"), 404 unknown or not yours to
see, 409 conflict, 413 body too large, 415 not application/gzip (bundles), 422 bad input with `errors` by path, 503 a system that is needed does not answer (Retry-After).

Who may what, by group (approvals.yaml): `roles.launch` launch, cancel and kill any job, and read their own; approvers read every job and decide;
`roles.read` read everything. Launchers and approvers may revoke one credential. Anyone with a role may run a sweep or, for what they
may read, a proof; who reads everything may verify the ledger, see its checkpoint, see what of the catalog is used, and have a report made.
"""
