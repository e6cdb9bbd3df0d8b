-- The ledger of the embedded core-banking host. Amounts are fen.

CREATE TABLE IF NOT EXISTS accounts (
    number      TEXT PRIMARY KEY,      -- account number or card number
    name        TEXT NOT NULL,
    kind        TEXT NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('open', 'restricted', 'closed')),
    balance_fen INTEGER NOT NULL,      -- the sum of the account's legs
    held_fen    INTEGER NOT NULL DEFAULT 0 CHECK (held_fen >= 0)  -- by pre-authorisations; not available
) STRICT, WITHOUT ROWID;

-- Every financial request and every reversal that was decided, with the answer that its repeats get.
CREATE TABLE IF NOT EXISTS transactions (
    id                INTEGER PRIMARY KEY,
    acquirer          INTEGER NOT NULL,
    terminal          TEXT NOT NULL,
    rrn               TEXT NOT NULL,
    stan              TEXT NOT NULL,
    class             TEXT NOT NULL CHECK (class IN ('1', '2', '4')),  -- MTI, second digit: authorisation, financial, reversal
    transmission_time TEXT NOT NULL,   -- DE 7
    processing_code   TEXT NOT NULL,
    amount_fen        INTEGER NOT NULL,
    fingerprint       BLOB NOT NULL,   -- of what was asked, to tell a repeat from another request under the same key
    code              TEXT NOT NULL,   -- DE 39 of the answer
    settlement_date   TEXT NOT NULL,   -- DE 15 of the answer
    state             TEXT NOT NULL CHECK (state IN (
        'declined', 'posted', 'reversed', 'reversal',  -- of those that move money, and of those that take it back
        'held', 'completed', 'released'                -- of pre-authorisations
    )),
    original          INTEGER REFERENCES transactions,  -- what a refund, completion, void or reversal is about
    UNIQUE (acquirer, terminal, rrn, class, stan)
) STRICT;

-- How a reversal finds its original: by DE 41 and DE 90. Not a partial index: one on "class = '2'" would make SQLite
-- prepare every query with "class = ?" anew, because the value might make the index usable (33 us instead of 4).
CREATE INDEX IF NOT EXISTS transactions_by_original_data
    ON transactions (terminal, stan, transmission_time, acquirer);

CREATE INDEX IF NOT EXISTS transactions_by_original ON transactions (original) WHERE original IS NOT NULL;

-- Double entry: the legs of each posting sum to zero. Positive is credit, what the bank owes the account's holder.
CREATE TABLE IF NOT EXISTS legs (
    posting INTEGER NOT NULL,  -- transactions.id; 0 for opening balances
    account TEXT NOT NULL REFERENCES accounts,
    fen     INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS legs_by_posting ON legs (posting);

-- Whose money a pre-authorisation holds.
CREATE TABLE IF NOT EXISTS holds (
    id      INTEGER PRIMARY KEY REFERENCES transactions,
    account TEXT NOT NULL REFERENCES accounts
) STRICT;

-- Originals that were reversed before they came. Should one still come, it is refused.
CREATE TABLE IF NOT EXISTS tombstones (
    acquirer          INTEGER NOT NULL,
    terminal          TEXT NOT NULL,
    stan              TEXT NOT NULL,
    transmission_time TEXT NOT NULL,
    PRIMARY KEY (acquirer, terminal, stan, transmission_time)
) STRICT, WITHOUT ROWID;

-- How PINs are known again, and how often in a row a card's was wrong. An offset says nothing without the bank's key.
CREATE TABLE IF NOT EXISTS pins (
    card       TEXT PRIMARY KEY REFERENCES accounts,
    pin_offset TEXT NOT NULL,
    tries      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
