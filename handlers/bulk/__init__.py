"""Tables in and out: CSV files, Avro files, backups; it knows no request and raises errors of its own."""
