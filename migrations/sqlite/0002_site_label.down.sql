-- Back to format 1: labels and locations are lost.

ALTER TABLE sites DROP COLUMN location;
ALTER TABLE sites DROP COLUMN label;
