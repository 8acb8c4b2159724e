-- Takes back format 1: everything kept is lost.

DROP TABLE settings;
DROP TABLE mails;
DROP TABLE invites;
DROP TABLE sites;
DROP TABLE signed_heads;
DROP TABLE entries;
DROP TABLE journals;
