// Package auth turns a request's credentials (Attic JWT, OIDC, none) into a Grant, and a Grant into yes or no.
//
// Most callers need two functions: [Verifier.Authenticate], which reads an
// Authorization header and never fails, and [Grant.Permission], which says what
// the caller may do with one cache.
//
// # Contract
//
// Credentials that are absent, malformed, expired or signed by somebody else all
// give the same thing: an anonymous Grant that carries the reason in
// Grant.Rejected. A bad token is never by itself an error, because a request with
// a broken token for a public cache has to succeed. The reason is for the log; only
// a [ClaimsError], which is about a token whose signature is good, may be told to the caller.
//
// # Token format
//
// A token is a compact JWS, signed with HS256 or RS256, exactly one of them per
// Verifier:
//
//	base64url({"alg":"HS256","typ":"JWT"}) "." base64url(claims) "." base64url(signature)
//
//	claims = {
//	  "exp": 1700000000,            optional, not past
//	  "nbf": 1690000000,            optional, not in the future (Leeway)
//	  "iat": 1690000000,            optional, not in the future (Leeway)
//	  "iss": "…",                   compared when Options.Issuer is set
//	  "aud": "…" or ["…"],          intersected when Options.Audiences is set
//	  "sub": "…", "jti": "…",       optional
//	  "https://jwt.attic.rs/v1": {
//	    "caches": {"<pattern>": {"r":1, "w":1, "d":1, "cc":1, "cr":1, "cq":1, "cd":1, "pin":1}, …}
//	  }
//	}
//
// The order of the patterns in the document is part of their meaning (the first
// pattern that matches wins), so the claims are decoded as a stream of JSON tokens and
// never through a Go map. A permission is the integer 0 or 1; true, 1.0 or 2
// make the whole token void. All letters but "pin" are Attic's; "pin" is celler's own,
// and servers that do not know it skip it, as they skip every key they do not know, so
// that one token serves both.
//
// # Concurrency
//
// A Verifier may be used by many goroutines. It remembers tokens whose signature
// it has checked (a bounded memo behind one mutex), so that a burst of narinfo
// requests costs one RSA verification, and it checks the times of a remembered
// token again on every call. A Grant is immutable.
package auth
