-- One statement of each is enough for both databases the store is made for.
CREATE TABLE IF NOT EXISTS head (one INTEGER PRIMARY KEY CHECK (one = 1), serial BIGINT NOT NULL);
INSERT INTO head (one, serial) VALUES (1, 0) ON CONFLICT DO NOTHING;
-- A model with its versions and its split, as JSON.
CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS manifests (artifact TEXT PRIMARY KEY, body TEXT NOT NULL);
-- Pushes that have begun and are not committed, as JSON.
CREATE TABLE IF NOT EXISTS pushes (id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, artifact TEXT NOT NULL, auto BOOLEAN NOT NULL, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms BIGINT NOT NULL, kind TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, sidecar TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS audit (id INTEGER PRIMARY KEY AUTOINCREMENT, at_ms BIGINT NOT NULL, principal TEXT NOT NULL, action TEXT NOT NULL, subject TEXT NOT NULL, allowed BOOLEAN NOT NULL, detail TEXT NOT NULL);
-- Tokens are kept as digests: who reads the database cannot use them.
CREATE TABLE IF NOT EXISTS tokens (digest TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, role TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS join_tokens (digest TEXT PRIMARY KEY, spiffe_path TEXT NOT NULL, names TEXT NOT NULL, expires_ms BIGINT NOT NULL, uses BIGINT NOT NULL);
-- Names that an id may have in its certificates: what its join tokens allowed.
CREATE TABLE IF NOT EXISTS granted_names (spiffe_path TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (spiffe_path, name));
