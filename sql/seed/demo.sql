-- A few people to look at. Again and again without harm: who is there already stays as they are.
insert into users (email, name, address, image, text)
values
    ('ann@example.com', 'Ann', '1 Main Street, Springfield', 'https://example.com/ann.png', 'Likes row houses.'),
    ('bob@example.com', 'Bob', '2 Main Street, Springfield', 'https://example.com/bob.png', null),
    ('chloé@example.com', 'Chloé', '3 rue des Lilas, Lyon', 'https://example.com/chloe.png', 'Prefers trees.'),
    ('dmitri@example.com', 'Дмитрий', 'Невский проспект 4, Санкт-Петербург', 'https://example.com/dmitri.png', null),
    ('erin@example.com', 'Erin', '5 Harbour Road, Cork', 'https://example.com/erin.png', 'Away in August.')
on conflict (email_key(email)) do nothing;
