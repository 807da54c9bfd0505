"""RocksDB's tables (`.sst`), block by block, so that damage costs a block and not the table."""
