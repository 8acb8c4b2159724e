-- Format 2: what operators call a site beside its name, and where it is.

ALTER TABLE sites ADD COLUMN label TEXT;
ALTER TABLE sites ADD COLUMN location TEXT;
