//! Who I am and who is calling: SPIFFE identities, certificates that rotate, mTLS.
